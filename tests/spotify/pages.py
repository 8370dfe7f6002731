"""The pages a person sees. They say in large letters that this is not Spotify."""

from html import escape

FRAME = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title} - {label}</title>
<style>
body {{ margin: 0; font: 16px/1.5 system-ui, sans-serif; background: #f3f4f6; color: #1f2937; }}
header {{ background: #4c1d95; color: #fff; padding: .8rem 1rem; text-align: center;
          font-weight: 600; }}
header small {{ display: block; font-weight: 400; opacity: .85; }}
main {{ max-width: 26rem; margin: 2rem auto; padding: 1.5rem 2rem 2rem; background: #fff;
        border-radius: 12px; box-shadow: 0 1px 4px #0003; }}
h1 {{ font-size: 1.3rem; margin: .5rem 0 1rem; }}
label {{ display: block; padding: .3rem 0; }}
input[type=text] {{ font: inherit; padding: .3rem .5rem; border: 1px solid #9ca3af;
                    border-radius: 6px; }}
ul {{ padding-left: 1.2rem; }}
code {{ word-break: break-all; }}
button {{ font: inherit; padding: .6rem 1.6rem; border-radius: 99px; border: 1px solid #6b7280;
          background: #fff; cursor: pointer; margin: 1rem .5rem 0 0; }}
button[value=agree] {{ background: #4c1d95; border-color: #4c1d95; color: #fff; }}
</style>
</head>
<body>
<header>{label}<small>A stand-in for tests. No real account, nothing leaves this machine.</small>
</header>
<main>
{content}
</main>
</body>
</html>
"""

CONSENT = """<h1>An app wants to connect to your account</h1>
<p>App: <code>{client}</code></p>
{scopes}
<form method="post">
<p>Log in as</p>
{users}
<label>or as <input type="text" name="name" maxlength="60" placeholder="a new name"
autocomplete="off"></label>
<button name="decision" value="agree">Agree</button>
<button name="decision" value="cancel">Cancel</button>
</form>
<p><small>You go back to <code>{redirect_uri}</code></small></p>"""

USER = (
    '<label><input type="radio" name="user" value="{name}"{checked}> {display_name}'
    " <small>({name}, {product})</small></label>"
)


def page(label, title, content):
    return FRAME.format(label=escape(label), title=escape(title), content=content)


def consent(label, client, scope, redirect_uri, users, chosen):
    items = "".join(f"<li>{escape(name)}</li>" for name in scope.split())
    scopes = f"<p>It asks for</p><ul>{items}</ul>" if items else "<p>It asks for public data</p>"
    rows = "\n".join(
        USER.format(
            name=escape(user.name), display_name=escape(user.display_name),
            product=escape(user.product), checked=" checked" if user.name == chosen else "",
        )
        for user in users
    )
    content = CONSENT.format(
        client=escape(client), scopes=scopes, users=rows, redirect_uri=escape(redirect_uri)
    )
    return page(label, "Log in", content)


def error(label, text):
    return page(label, "Error", f"<h1>Error</h1><p>{escape(text)}</p>")


def start(label):
    content = (
        "<h1>Ready</h1><p>Apps send people to <code>/authorize</code>, redeem codes at"
        " <code>/api/token</code> and call <code>/v1/me</code>. What happens otherwise is switched"
        " over <code>/_control/</code>.</p>"
    )
    return page(label, "Ready", content)
