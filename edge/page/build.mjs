// Builds the page: `node build.mjs FOLDER` writes its files, `node build.mjs --check FOLDER` compares them with a new build.
//
// Every file but those of HTML has the hash of its content in its name, and is compressed: browsers keep it forever. The check
// compares what the compressed files contain, because versions of zlib compress differently.

import { build } from "esbuild";
import { readFile, mkdir, readdir, rm, writeFile } from "node:fs/promises";
import { createHash } from "node:crypto";
import { basename, join } from "node:path";
import { gunzipSync, gzipSync } from "node:zlib";

const URL_PREFIX = "/page/";
const SOURCES = new URL("./src/", import.meta.url);
/** The page of the REST listener, and that of the admin listener. */
const PAGES = ["index.html", "console.html"];

/** Returns the content of each file of the page by its name. */
async function bundle() {
  const { outputFiles, metafile } = await build({
    absWorkingDir: new URL(".", import.meta.url).pathname,
    entryPoints: ["src/main.tsx", "src/styles/page.css", "src/console.tsx", "src/styles/console.css", "src/icon.svg"],
    entryNames: "[name]-[hash]",
    chunkNames: "[name]-[hash]",
    outdir: "out",
    bundle: true,
    splitting: true,
    format: "esm",
    target: "es2022",
    minify: true,
    legalComments: "none",
    loader: { ".svg": "copy" },
    metafile: true,
    write: false,
  });
  const files = new Map(outputFiles.map((file) => [basename(file.path), Buffer.from(file.contents)]));
  const notices = await licenses(metafile);
  const name = `licenses-${createHash("sha256").update(notices).digest("hex").slice(0, 8).toUpperCase()}.txt`;
  files.set(name, Buffer.from(notices));
  for (const page of PAGES) files.set(page, Buffer.from(await html(page, metafile, name)));
  return files;
}

/** Returns the licenses of the packages that are part of the page. */
async function licenses({ inputs }) {
  const found = Object.keys(inputs).flatMap((path) => /^node_modules\/(?:@[^/]+\/)?[^/]+/.exec(path)?.[0] ?? []);
  const texts = [...new Set(found)].sort().map(async (folder) => {
    const place = new URL(`${folder}/`, import.meta.url);
    const file = (await readdir(place)).find((name) => /^licen[cs]e/i.test(name));
    if (!file) throw new Error(`${folder} has no license; the page must ship it`);
    return `${folder.replace("node_modules/", "")}\n\n${(await readFile(new URL(file, place), "utf8")).trim()}\n`;
  });
  return (await Promise.all(texts)).join(`\n${"-".repeat(80)}\n\n`);
}

/** Returns a page with the names of the files that it refers to. */
async function html(page, metafile, notices) {
  const names = new Map([["licenses.txt", URL_PREFIX + notices]]);
  for (const [path, output] of Object.entries(metafile.outputs)) {
    if (output.entryPoint) names.set(basename(output.entryPoint), URL_PREFIX + basename(path));
    else if (path.endsWith(".svg")) names.set("icon.svg", URL_PREFIX + basename(path));
  }
  const text = await readFile(new URL(page, SOURCES), "utf8");
  return text.replace(/%([a-z.]+)%/g, (_, name) => {
    if (!names.has(name)) throw new Error(`src/${page} refers to ${name}, which is not built`);
    return names.get(name);
  });
}

/** Returns the name of a file in the folder. */
const stored = (name) => (PAGES.includes(name) ? name : `${name}.gz`);

async function write(folder, files) {
  await rm(folder, { recursive: true, force: true });
  await mkdir(folder, { recursive: true });
  for (const [name, content] of files) {
    await writeFile(join(folder, stored(name)), PAGES.includes(name) ? content : gzipSync(content, { level: 9 }));
  }
}

/** Returns whether the folder contains exactly these files. */
async function isFresh(folder, files) {
  const present = (await readdir(folder).catch(() => [])).sort();
  if (present.join() !== [...files.keys()].map(stored).sort().join()) return false;
  for (const [name, content] of files) {
    const found = await readFile(join(folder, stored(name)));
    if (!content.equals(PAGES.includes(name) ? found : gunzipSync(found))) return false;
  }
  return true;
}

const [first, second] = process.argv.slice(2);
const files = await bundle();
if (first !== "--check") await write(first, files);
else if (!(await isFresh(second, files))) {
  console.error(`edge/page/${second} is stale: run 'make page' and commit the changes`);
  process.exitCode = 1;
}
