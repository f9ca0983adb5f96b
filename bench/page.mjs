// Opens the page at the address of the first argument as often as the second one says, in one window,
// and prints the milliseconds to its first contentful paint, one a line. The third argument is
// Chromium, the fourth the folder of the modules of test/page.
import { createRequire } from "node:module";

const [address, times, executablePath, modules] = process.argv.slice(2);
const { chromium } = createRequire(modules + "/")("playwright-core");
const browser = await chromium.launch({ executablePath, args: ["--no-sandbox", "--no-proxy-server"] });
const page = await browser.newPage();
page.setDefaultTimeout(30_000);
for (let i = 0; i <= times; i++) {
  await page.goto(address);
  const painted = await page.evaluate(() => new Promise((resolve) => {
    new PerformanceObserver((list, observer) => {
      const [paint] = list.getEntriesByName("first-contentful-paint");
      if (!paint) return;
      observer.disconnect();
      resolve(paint.startTime);
    }).observe({ type: "paint", buffered: true });
  }));
  if (i > 0) console.log(painted); // the first time the browser starts a process for the page
}
await browser.close();
