// The README's React and Vue components, as they stand there, against the running service:
// node examples.mjs SITE PERSON_MODULE FOLDER, where FOLDER has Playlists.tsx, Playlists.vue and spotify-auth.js.
// Prints what each showed: to nobody, to somebody who has not agreed to it, and after its own login.
import {readFileSync, writeFileSync} from "node:fs";
import {createElement} from "react";
import {act, create} from "react-test-renderer";
import ts from "typescript";
import {createRenderer} from "vue";
import {compileScript, parse} from "vue/compiler-sfc";

const [site, personModule, folder] = process.argv.slice(2);
const {Person} = await import(personModule);
let left; // the address for which the page was left
globalThis.location = {href: site + "/playlists", assign: (url) => { left = url; }};
globalThis.IS_REACT_ACT_ENVIRONMENT = true;

/** The compiled component. */
async function built(name, text) {
  const compilerOptions = {jsx: ts.JsxEmit.ReactJSX, module: ts.ModuleKind.ESNext, target: ts.ScriptTarget.ES2022};
  writeFileSync(`${folder}/${name}.mjs`, ts.transpileModule(text, {compilerOptions}).outputText);
  return (await import(`${folder}/${name}.mjs`)).default;
}

const aMoment = () => new Promise((done) => setTimeout(done, 20));

async function until(condition, pass = aMoment) {
  for (let end = Date.now() + 10000; !condition(); await pass())
    if (Date.now() > end) throw new Error("nothing came of it");
}

/** open() shows the component: {text, press, close}. */
async function story(open) {
  const person = new Person();
  globalThis.fetch = person.fetch;
  const shown = [];
  let page = await open();
  shown.push(page.text());
  page.close();
  await person.logIn(site + "/auth/authorize");
  page = await open();
  shown.push(page.text());
  await page.press();
  await person.logIn(left);
  page.close();
  page = await open();
  shown.push(page.text());
  page.close();
  return shown;
}

async function openInReact() {
  const component = await built("react", readFileSync(`${folder}/Playlists.tsx`, "utf8"));
  let root;
  await act(async () => { root = create(createElement(component)); });
  const text = (node = root.toJSON()) => typeof node === "string" ? node : (node.children ?? []).map(text).join();
  await until(() => text() !== "One moment …", () => act(aMoment));
  return {text: () => text(), press: () => act(async () => root.root.findByType("button").props.onClick()),
          close: () => act(() => root.unmount())};
}

// A tree of plain objects is all that Vue needs for a document.
const tree = {
  createElement: (tag) => ({tag, props: {}, children: []}),
  createText: (text) => ({text, children: []}),
  createComment: () => ({text: "", children: []}),
  setText: (node, text) => { node.text = text; },
  setElementText: (node, text) => { node.children = [{text, children: [], parent: node}]; },
  patchProp: (node, name, _, value) => { node.props[name] = value; },
  parentNode: (node) => node.parent,
  nextSibling: (node) => node.parent.children[node.parent.children.indexOf(node) + 1],
  insert(node, parent, before) {
    const at = before ? parent.children.indexOf(before) : parent.children.length;
    parent.children.splice(at, 0, node);
    node.parent = parent;
  },
  remove(node) { node.parent.children = node.parent.children.filter((other) => other !== node); },
};

async function openInVue() {
  const {descriptor} = parse(readFileSync(`${folder}/Playlists.vue`, "utf8"));
  const component = await built("vue", compileScript(descriptor, {id: "playlists", inlineTemplate: true}).content);
  const root = tree.createElement("main");
  const app = createRenderer(tree).createApp(component);
  app.mount(root);
  const text = (node) => node.text ?? node.children.map(text).filter(Boolean).join();
  const find = (node) => node.props?.onClick ? node : node.children.map(find).find(Boolean);
  await until(() => text(root) !== "One moment …");
  return {text: () => text(root), press: () => find(root).props.onClick(), close: () => app.unmount()};
}

console.log(JSON.stringify({react: await story(openInReact), vue: await story(openInVue)}));
