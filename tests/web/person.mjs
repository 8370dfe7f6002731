// For Node: what a browser adds to fetch() (cookies), and the person before it, who agrees at the simulated Spotify.

export class Person {
  #cookies = new Map();

  /** Like a browser's fetch() with credentials. */
  fetch = async (url, init = {}) => {
    const headers = new Headers(init.headers);
    if (this.#cookies.size)
      headers.set("Cookie", Array.from(this.#cookies, ([name, value]) => `${name}=${value}`).join("; "));
    const answer = await own(url, {...init, headers});
    for (const line of answer.headers.getSetCookie()) {
      const [, name, value] = line.match(/^([^=]+)=([^;]*)/);
      if (/max-age=0/i.test(line)) this.#cookies.delete(name);
      else this.#cookies.set(name, value);
    }
    return answer;
  };

  /** From auth.loginUrl() to the page that the login ends on; its address. */
  async logIn(loginUrl, user = "ada") {
    // Node's fetch says that it is one, so it is told the address instead of being sent there.
    const {url} = await (await this.fetch(loginUrl, {headers: {Accept: "application/json"}})).json();
    const agreed = await own(url, {method: "POST", redirect: "manual",
                                   body: new URLSearchParams({decision: "agree", name: user})});
    const back = await this.fetch(agreed.headers.get("Location"), {redirect: "manual"});
    return back.headers.get("Location");
  }
}

const own = globalThis.fetch;
