// What Redocly's linter says of an OpenAPI document: node lint.mjs FILE prints a list of [rule, where, what].
import {createConfig, lint} from "@redocly/openapi-core";

const rules = {
  "info-license": "off", // the document comes with the service
  "no-unused-components": "off", // it does not look into x-…; the tests do
};
const config = await createConfig({extends: ["recommended-strict"], rules});
const problems = await lint({ref: process.argv[2], config});
console.log(JSON.stringify(problems.map(({ruleId, location, message}) => [ruleId, location[0].pointer, message])));
