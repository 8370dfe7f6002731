"""nginx/www/adapters/: Spotify's own SDKs on the client module, against the running service, and their types."""

import json

import npm
from chromium import agree, foreign_page
from stack import TREE, find_program
from test_module import node_tests, run

WEB = TREE / "nginx" / "www"
SDK = npm.INSTALLED / "node_modules" / "@spotify" / "web-api-ts-sdk" / "dist" / "mjs" / "index.js"


def test_spotifys_sdks_get_their_tokens_from_the_adapters(stack):
    npm.installed()
    assert len(node_tests("adapters.test.mjs", SITE=stack.url, SPOTIFY=stack.spotify.url, SDK=str(SDK))) >= 10


def test_types_of_the_adapters_hold_beside_those_of_the_sdk():
    check_types("adapters", TREE / "tests" / "web" / "adapters.ts")


def check_types(name, *files):
    """tsc --strict, with the packages of build/npm."""
    modules = npm.installed() / "node_modules"
    # Those of the SDK want Node's beside them, and are not ours to check.
    options = {"strict": True, "noEmit": True, "skipLibCheck": True, "jsx": "react-jsx", "target": "es2022", "types": [],
               "module": "esnext", "moduleResolution": "bundler", "lib": ["es2022", "dom", "dom.iterable"],
               "paths": {"*": [f"{modules}/@types/*", f"{modules}/*"]}}
    config = npm.INSTALLED / f"tsconfig-{name}.json"
    config.write_text(json.dumps({"compilerOptions": options, "files": [str(path) for path in files]}))
    run(find_program("node"), modules / "typescript" / "bin" / "tsc", "-p", config)


def test_the_sdk_lists_playlists_in_chromium_on_another_origin(chromium, make_stack):
    """Where a header too many would want a preflight that the service refuses."""
    npm.installed()
    modules = {"/sdk/" + str(path.relative_to(SDK.parent)): path for path in SDK.parent.rglob("*.js")}
    modules.update({"/" + name: WEB / name for name in ("spotify-auth.js", "adapters/web-api-ts-sdk.js")})
    files = {name: path.read_text() for name, path in modules.items()}
    with foreign_page("<!doctype html><title>Frontend</title><h1>Frontend</h1>", files) as app:
        stack = make_stack(settings={"ALLOWED_ORIGINS": app.rstrip("/"), "SPOTIFY_SCOPE": "playlist-read-private"})
        page = chromium.visit(stack)
        page.open("/auth/authorize?return_to=" + app)
        page.wait_text("Simulated Spotify")
        agree(page)
        page.wait_text("Frontend")
        assert page.run_async(f"""
            const {{SpotifyApi}} = await import("/sdk/index.js");
            const {{SpotifyAuth}} = await import("/spotify-auth.js");
            const {{throughProxy}} = await import("/adapters/web-api-ts-sdk.js");
            const api = new SpotifyApi(...throughProxy(new SpotifyAuth({{base: "{stack.url}/auth"}})));
            return (await api.currentUser.playlists.playlists()).items.map((item) => item.name);
        """) == ["Playlist of ada"]
