// Opens the page in Chromium and prints a line of JSON for each check: its name and, if it failed,
// the fault. page_test.go writes its settings to the standard input.
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { strict as assert } from "node:assert";
import * as http from "node:http";

const settings = JSON.parse(readFileSync(0, "utf8"));
const require = createRequire(settings.modules + "/");
const { chromium } = require("playwright-core");
const axe = readFileSync(require.resolve("axe-core"), "utf8");

const patience = 30_000;
const browser = await chromium.launch({
  executablePath: settings.chromium,
  args: ["--no-sandbox", "--no-proxy-server", "--host-resolver-rules=MAP site.example 127.0.0.1, MAP docker.example.lan 127.0.0.1"],
});

// Checks run a few at a time, until the next call of together.
let waiting = [];
const check = (name, options, work) => waiting.push(() => run(name, options, work));
async function together(most) {
  const queue = waiting;
  waiting = [];
  const worker = async () => { for (let next = queue.shift(); next; next = queue.shift()) await next(); };
  await Promise.all(Array.from({ length: most }, worker));
}

// run opens a page in a context of its own and reports whether work ends without a fault: neither an
// error of its own nor one that the browser's console shows.
async function run(name, options, work) {
  const context = await browser.newContext({ viewport: { width: 1600, height: 900 }, locale: "en-US", ...options });
  context.setDefaultTimeout(patience);
  const page = await context.newPage();
  const faults = [];
  page.on("pageerror", (e) => faults.push(e.message));
  page.on("console", (m) => { if (m.type() === "error" && !options.errors) faults.push(m.text()); });
  try {
    await work(page, context);
  } catch (e) {
    faults.push(e.message);
  }
  console.log(JSON.stringify({ name, fault: faults.join("\n") }));
  await context.close();
}

const first = (page) => page.goto(settings.trusted);
const accessible = async (page) => {
  await page.evaluate(axe);
  const { violations } = await page.evaluate(() => axe.run(document, { resultTypes: ["violations"] }));
  assert.deepEqual(violations.map((v) => `${v.id}: ${v.nodes.map((n) => n.target).join(" ")}`), []);
};

// In every language, scheme and width.
for (const [locale, lang, words] of [["en-GB", "en", "The last hour"], ["zh-CN", "zh-CN", "最近一小时"]]) {
  for (const colorScheme of ["light", "dark"]) {
    for (const width of [360, 1600]) {
      const name = `${lang}, ${colorScheme}, ${width} pixels`;
      check(name, { locale, colorScheme, viewport: { width, height: 900 } }, async (page) => {
        await first(page);
        assert.equal(await page.getAttribute("html", "lang"), lang);
        await page.getByRole("heading", { name: words }).waitFor();
        assert.ok((await page.textContent("#pulls")).includes("acme/payroll:1.4"), "the pulls are not shown");
        for (const details of await page.locator("details").all()) await details.evaluate((d) => { d.removeAttribute("name"); d.open = true; });
        const over = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
        assert.ok(over <= 0, `the page is ${over} pixels wider than the screen`);
        await page.screenshot({ path: `${settings.pictures}/${lang}-${colorScheme}-${width}.png`, fullPage: true });
        await accessible(page);
        const back = await page.evaluate(() => getComputedStyle(document.body).backgroundColor.match(/\d+/g).map(Number));
        assert.equal(back[0] < 128, colorScheme === "dark", `the background is ${back}`);
      });
    }
  }
}

check("one request of less than 60 kB, and nothing is stored in the browser", {}, async (page, context) => {
  const asked = [];
  page.on("request", (r) => { if (!r.url().startsWith("data:")) asked.push(r.url()); });
  const response = await first(page);
  await page.waitForLoadState("networkidle");
  assert.deepEqual(asked, [settings.trusted]);
  const { length } = await response.body();
  assert.ok(length < 60_000, `${length} bytes`);
  assert.deepEqual(await context.cookies(), []);
  assert.equal(await page.evaluate(() => localStorage.length + sessionStorage.length), 0);
});

for (const javaScriptEnabled of [true, false]) {
  const how = javaScriptEnabled ? "with script" : "without script";
  check(`the language is switched ${how}`, { javaScriptEnabled }, async (page) => {
    await first(page);
    await page.getByRole("link", { name: "中文" }).click();
    await page.getByRole("heading", { name: "最近一小时" }).waitFor();
    await page.getByRole("link", { name: "English" }).click();
    await page.getByRole("heading", { name: "The last hour" }).waitFor();
    assert.equal(await page.getAttribute("nav a[aria-current]", "lang"), "en");
  });
  check(`each engine's commands open ${how}`, { javaScriptEnabled }, async (page) => {
    await first(page);
    for (const engine of ["podman", "crane", "containerd", "Docker"]) {
      await page.locator("summary", { hasText: new RegExp(`^${engine}$`) }).click();
      const open = page.locator("details[open]", { has: page.locator("summary", { hasText: new RegExp(`^${engine}$`) }) });
      await open.locator("pre").first().waitFor({ state: "visible" });
      assert.ok((await open.textContent()).includes(`localhost:${settings.port}/`), "the command does not have this host's name");
    }
  });
}

check("without script everything is shown, and can be refreshed", { javaScriptEnabled: false }, async (page) => {
  await first(page);
  assert.equal(await page.locator("button").count(), 0);
  assert.ok(await page.locator("#figures svg").count() >= 3);
  assert.ok((await page.textContent("#pulls")).includes("redis:8-alpine"));
  await page.getByRole("link", { name: "Refresh" }).click();
  await page.getByRole("heading", { name: "The last hour" }).waitFor();
});

check("the figures agree with what was pulled", {}, async (page) => {
  await first(page);
  const rows = await page.locator(".pulls tbody tr").allTextContents();
  assert.equal(rows.length, 3, rows.join("\n"));
  assert.ok(rows[0].includes("acme/payroll:1.4") && rows[0].includes("7.3 MB") && rows[0].includes("registry"), rows[0]);
  assert.ok(rows[1].includes("redis:8-alpine") && rows[1].includes("skopeo") && rows[1].includes("3.5 MB") && rows[1].includes("cache"), rows[1]);
  assert.ok(rows[2].includes("redis:8-alpine") && rows[2].includes("registry"), rows[2]);
  const tiles = await page.locator(".tile").allTextContents();
  assert.ok(tiles[1].includes("3.5 MB") && tiles[1].includes("11 MB"), tiles[1]);
  assert.match(tiles[2], /Docker Hub pulls left\s*76\s*of 100 in 6 h · without a login/);
  assert.match(await page.textContent("h1"), /pull through sidemirror/);
});

await together(3);

// These two share the clipboard.
check("by keyboard", { permissions: ["clipboard-read", "clipboard-write"] }, async (page) => {
  await first(page);
  const focused = () => page.evaluate(() => document.activeElement.textContent);
  await page.keyboard.press("Tab");
  assert.equal(await focused(), "Skip to the content");
  await page.keyboard.press("Enter");
  assert.equal(await page.evaluate(() => document.activeElement.id), "main");
  let seen = "";
  for (let i = 0; i < 60 && !/^Copy$/.test(seen); i++) {
    await page.keyboard.press("Tab");
    seen = await focused();
  }
  const block = await page.evaluate(() => document.activeElement.parentElement.querySelector("pre").textContent);
  const outline = await page.evaluate(() => getComputedStyle(document.activeElement).outlineStyle);
  assert.notEqual(outline, "none", "the focus cannot be seen");
  await page.keyboard.press("Enter");
  await page.locator("#said", { hasText: "Copied" }).waitFor({ state: "attached" });
  assert.equal(await page.evaluate(() => navigator.clipboard.readText()), block);
  while (!/^podman$/.test(seen)) {
    await page.keyboard.press("Tab");
    seen = await focused();
    assert.ok(!seen.startsWith("github.com"), "podman's commands cannot be reached by keyboard");
  }
  await page.keyboard.press("Enter");
  await page.locator("details[open] pre", { hasText: "podman pull" }).waitFor({ state: "visible" });
});

check("commands are copied at a name that is not a secure context", {}, async (page, context) => {
  await page.goto(`http://docker.example.lan:${settings.port}/`);
  assert.equal(await page.evaluate(() => isSecureContext), false);
  await page.getByRole("button", { name: "Copy: docker pull" }).first().click();
  await page.locator("#said", { hasText: "Copied" }).waitFor({ state: "attached" });
  await context.grantPermissions(["clipboard-read"], { origin: settings.trusted });
  const other = await context.newPage();
  await other.goto(settings.trusted);
  await other.bringToFront();
  assert.equal(await other.evaluate(() => navigator.clipboard.readText()), `docker pull docker.example.lan:${settings.port}/redis`);
});

await together(1);

// get asks sidemirror as an engine does.
const get = (path) => new Promise((resolve, reject) => {
  http.get(new URL(path, settings.trusted), { headers: { "User-Agent": "docker/29.0.0" }, agent: false }, (response) => {
    response.resume().on("end", () => resolve(response.statusCode)).on("error", reject);
  }).on("error", reject);
});

check("a pull appears while the page is open, and the focus stays", {}, async (page) => {
  await first(page);
  const summary = page.locator("summary", { hasText: /^crane$/ });
  await summary.click();
  assert.equal(await get("/v2/library/postgres/manifests/17"), 200);
  await page.locator(".pulls", { hasText: "postgres:17" }).waitFor();
  assert.ok(await summary.evaluate((s) => s === document.activeElement && s.parentElement.open), "the update took the focus");
  await accessible(page);
});

check("what the reader holds with the keyboard is not replaced", {}, async (page) => {
  await first(page);
  await page.evaluate(() => {
    const link = document.createElement("a");
    link.href = "#main";
    link.textContent = "held";
    document.querySelector("#pulls").append(link);
    link.focus();
  });
  const next = page.waitForResponse((r) => r.url().includes("part=live"));
  assert.equal(await get("/v2/ghcr.io/acme/payroll/manifests/1.4"), 200);
  await next;
  await page.waitForResponse((r) => r.url().includes("part=live"));
  assert.equal(await page.evaluate(() => document.activeElement.textContent), "held");
});

check("the page says that sidemirror does not respond, until it does", { errors: true }, async (page) => {
  await first(page);
  await page.route("**/*part=live*", (route) => route.abort());
  await page.locator("#stale", { hasText: "does not respond" }).waitFor();
  await page.unroute("**/*part=live*");
  await page.locator("#stale", { hasText: "does not respond" }).waitFor({ state: "detached" });
});

check("an untrusted reader sees no image", {}, async (page) => {
  await first(page);
  const seen = await page.textContent("main");
  for (const secret of settings.secrets) assert.ok(seen.includes(secret), `a trusted reader does not see ${secret}`);
  await page.goto(settings.untrusted);
  await page.screenshot({ path: `${settings.pictures}/untrusted.png`, fullPage: true });
  const text = await page.textContent("main");
  for (const secret of settings.secrets) assert.ok(!text.includes(secret), `the page shows ${secret}`);
  assert.ok(text.includes("show_images = true"));
  await accessible(page);
});

check("another site's page learns nothing", { errors: true }, async (page) => {
  await page.goto(`http://site.example:${settings.site}/`);
  const learned = await page.evaluate(async ({ target, port, patience }) => {
    const tried = {};
    const attempt = async (name, work) => {
      const late = new Promise((resolve) => setTimeout(() => resolve("nothing happened"), patience));
      tried[name] = await Promise.race([work().catch((e) => "refused: " + e.message), late]);
    };
    const loaded = (element) => new Promise((resolve) => {
      element.onload = () => resolve("READ");
      element.onerror = () => resolve("refused");
      document.body.append(element);
    });
    for (const [name, path] of [["page", ""], ["part", "?part=live"]]) {
      await attempt(`fetch of the ${name}`, async () => "READ " + (await (await fetch(target + path)).text()).length);
      await attempt(`opaque fetch of the ${name}`, async () => {
        const r = await fetch(target + path, { mode: "no-cors" });
        return (await r.text()).length > 0 ? "READ" : "refused";
      });
      await attempt(`rebound ${name}`, async () => {
        const r = await fetch(`http://site.example:${port}/${path}`, { mode: "no-cors" });
        return (await r.text()).includes("sidemirror runs") ? "READ" : "refused";
      });
      await attempt(`script of the ${name}`, () => loaded(Object.assign(document.createElement("script"), { src: target + path })));
      await attempt(`image of the ${name}`, () => loaded(Object.assign(new Image(), { src: target + path })));
      await attempt(`stylesheet of the ${name}`, () => loaded(Object.assign(document.createElement("link"), { rel: "stylesheet", href: target + path })));
      await attempt(`event source of the ${name}`, () => new Promise((resolve) => {
        const source = new EventSource(target + path);
        source.onopen = () => resolve("READ");
        source.onerror = () => { source.close(); resolve("refused"); };
      }));
    }
    await attempt("frame", async () => {
      const frame = Object.assign(document.createElement("iframe"), { src: target });
      await loaded(frame);
      return frame.contentDocument ? "READ" : frame.contentWindow.length ? "READ frames" : "refused";
    });
    await attempt("window", async () => {
      const other = open(target);
      for (let i = 0; other && !other.closed && i < 100; i++) await new Promise((resolve) => setTimeout(resolve, 50));
      return other && !other.closed ? "READ: the window can be followed" : "refused";
    });
    tried.measured = performance.getEntriesByType("resource").some((e) => e.name.startsWith(target) && (e.transferSize || e.encodedBodySize)) ? "READ" : "refused";
    return tried;
  }, { target: settings.trusted, port: settings.port, patience: 10_000 });
  const read = Object.entries(learned).filter(([, result]) => !result.startsWith("refused"));
  assert.deepEqual(read, []);
  assert.equal(Object.keys(learned).length, 17);
});

check("a reader who comes by a link of another site sees no image at first", {}, async (page) => {
  await page.goto(`http://site.example:${settings.site}/`);
  await page.evaluate((target) => { document.body.innerHTML = `<a href="${target}">there</a>`; }, settings.trusted);
  await page.getByRole("link", { name: "there" }).click();
  await page.getByRole("heading", { name: "The last hour" }).waitFor();
  assert.ok(!(await page.textContent("#pulls")).includes("payroll"));
});

await together(3);
await browser.close();
