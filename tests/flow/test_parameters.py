"""A request that is refused for one of its parameters is told which one, and nothing of what it sent (API.md 3)."""

import pytest

from browser import Browser
from clients import Client

BOB = Client("bob")
SECRET = "echoed-by-nobody"

GET = [
    ("/authorize?return_to=//echoed-by-nobody.example", "return_to", "is not as it should be"),
    ("/authorize?return_to=/" + "x" * 2048, "return_to", "is not as it should be"),
    ("/authorize?show_dialog=echoed-by-nobody", "show_dialog", "is not as it should be"),
    ("/authorize?return_to=/a&return_to=/echoed-by-nobody", "return_to", "is repeated, or badly encoded"),
    ("/authorize?return_to=/echoed-by-nobody%00", "return_to", "is repeated, or badly encoded"),
    ("/callback?state=" + "A" * 43, "code", "is missing"),
    (f"/callback?state={'A' * 43}&code=echoed-by-nobody&error=x", "code", "stands beside error"),
    (f"/callback?state={'A' * 43}&code=" + "x" * 4097, "code", "is too long"),
    (f"/callback?state={'A' * 43}&code=x&iss=https://echoed-by-nobody.example", "iss", "is not as it should be"),
]
POST = [
    ("/logout", "all=echoed-by-nobody", "all", "is not as it should be"),
    ("/logout", "all=true&id=echoed-by-nobody", "id", "stands beside all=true"),
    ("/logout?all=true", "all=true", "all", "stands in the address and in the form"),
    ("/swap", "", "code", "is missing"),
    ("/swap", "code=echoed-by-nobody&code_verifier=short", "code_verifier", "is not as it should be"),
    ("/swap", "code=x&redirect_uri=echoed-by-nobody:", "redirect_uri", "is not as it should be"),
    ("/swap?code=echoed-by-nobody", "", "code", "belongs into the form, not into the address"),
    ("/swap/refresh", "client_id=x", "client_id", "is not as it should be"),
    ("/swap/refresh", "grant_type=refresh_token", "refresh_token", "is missing"),
    ("/device", "scope=streaming&scope=echoed-by-nobody", "scope", "is repeated, or badly encoded"),
    ("/api/token", "", "grant_type", "is missing"),
    ("/api/token", "grant_type=urn:ietf:params:oauth:grant-type:device_code", "device_code", "is missing"),
    ("/api/token", "grant_type=refresh_token", "refresh_token", "is missing"),
    ("/api/token", "grant_type=refresh_token&refresh_token=" + "x" * 8193, "refresh_token", "is too long"),
]


def assert_names(answer, name, fault):
    assert answer.status_code == 400 and SECRET not in answer.text, answer.text
    assert answer.json()["error_description"] == f"The parameter {name} {fault}."


@pytest.mark.parametrize("path, name, fault", GET)
def test_the_parameter_of_an_address_is_named(stack, path, name, fault):
    browser = Browser(stack)
    assert_names(browser.navigate(browser.mount + path, headers={"Accept": "application/json"}), name, fault)
    page = browser.navigate(browser.mount + path)
    assert page.status_code == 400 and f"The parameter {name} {fault}." in page.text and SECRET not in page.text


@pytest.mark.parametrize("path, form, name, fault", POST)
def test_the_parameter_of_a_form_is_named(stack, path, form, name, fault):
    assert_names(Browser(stack).fetch("POST", path, data=form,
                                      headers={"Content-Type": "application/x-www-form-urlencoded"}), name, fault)


@pytest.mark.parametrize("form, name, fault", [
    ("client_secret=echoed-by-nobody", "client_secret", "stands beside the header Authorization"),
    ("client_id=echoed-by-nobody", "client_id", "names another client than the header Authorization")])
def test_a_second_way_to_say_who_a_client_is_is_named(stack, form, name, fault):
    headers = {"Content-Type": "application/x-www-form-urlencoded", "Authorization": BOB.basic}
    assert_names(Browser(stack).fetch("POST", "/api/token", data="grant_type=client_credentials&" + form,
                                      headers=headers), name, fault)


@pytest.mark.parametrize("path", ["/authorize?echoed-by-nobody=1&echoed-by-nobody=2", "/authorize?echoed%00=1",
                                  "/authorize?" + "&".join(f"p{i}=1" for i in range(65))])
def test_what_is_none_of_ours_is_not_named(stack, path):
    browser = Browser(stack)
    answer = browser.navigate(browser.mount + path, headers={"Accept": "application/json"})
    assert answer.status_code == 400 and "echoed" not in answer.text
    assert answer.json()["error_description"].startswith("A parameter is missing, repeated")
