// Builds report.js and LICENSES.txt: `node build.mjs FOLDER`, where FOLDER holds node_modules of package-lock.json.

import { createHash } from "node:crypto";
import { readFileSync, readdirSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";

const here = dirname(fileURLToPath(import.meta.url));
const folder = resolve(process.argv[2] ?? here);
const { build } = createRequire(join(folder, "package.json"))("esbuild");

// The same sum as in tests/reports/test_page_bundle.py: a bundle that is older than its sources is found without Node.
const sources = ["package-lock.json", "package.json", "build.mjs", ...readdirSync(join(here, "src")).map((name) => `src/${name}`)].sort();
const sum = createHash("sha256");
for (const name of sources) sum.update(`${name}\n`).update(readFileSync(join(here, name))).update("\n");
const hash = sum.digest("hex");

const result = await build({
  absWorkingDir: here, entryPoints: ["src/main.js"], bundle: true, minify: true, format: "iife", target: "es2022", charset: "ascii",
  legalComments: "none", nodePaths: [join(folder, "node_modules")], write: false, logLevel: "warning",
});
// An HTML parser would end the script at the first of these, and read the second as a comment.
const text = result.outputFiles[0].text.replaceAll("</script", "<\\/script").replaceAll("<!--", "<\\!--");
const head = `/* sources sha256-${hash}; licences of the packages inside: LICENSES.txt */\n`;
writeFileSync(join(here, "report.js"), head + text);

// Every package of the lock but the tools: regl-scatterplot's own file already holds those that it needs.
const { packages } = JSON.parse(readFileSync(join(here, "package-lock.json"), "utf8"));
const inside = Object.keys(packages).filter((path) => path && !packages[path].dev);
const licences = inside.sort().map((path) => {
  const at = join(folder, path);
  const { name, version, license } = JSON.parse(readFileSync(join(at, "package.json"), "utf8"));
  const file = readdirSync(at).find((each) => /^licen[cs]e/i.test(each));
  if (!file) throw new Error(`${name} has no licence file`);
  return `${name} ${version} (${license})\n${"=".repeat(72)}\n${readFileSync(join(at, file), "utf8").replaceAll("\r\n", "\n").trim()}\n`;
});
writeFileSync(join(here, "LICENSES.txt"), `Packages inside report.js, and their licences.\n\n${licences.join("\n\n")}`);
