// Label clips with a running service, in Node 20 or newer, without a package.
//
// node examples/classify.mjs http://127.0.0.1:8000 examples/clip.mp4 ...

import { openAsBlob } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";

const ATTEMPTS = 5;

/** The answer to a clip. A busy service (429, 503) is asked again after the time that it states. */
async function classify(server, path) {
  const video = await openAsBlob(path); // is read while it is sent
  for (let attempt = 1; ; attempt++) {
    const answer = await fetch(`${server}/v1/classify?top_k=1`, {
      method: "POST",
      headers: { "Content-Type": "application/octet-stream" },
      body: video,
    });
    const busy = answer.status === 429 || answer.status === 503;
    if (!busy || attempt === ATTEMPTS) {
      return { ok: answer.ok, document: await answer.json() };
    }
    await sleep(1000 * Number(answer.headers.get("Retry-After") ?? 1));
  }
}

const [server, ...clips] = process.argv.slice(2);
for (const clip of clips) {
  const { ok, document } = await classify(server, clip);
  if (ok) {
    const [best] = document.predictions;
    console.log(`${clip}: ${best.label} (${Math.round(100 * best.score)}%)`);
  } else {
    // A problem document: `code` is for programs, `detail` for people.
    console.log(`${clip}: ${document.code}: ${document.detail}`);
    process.exitCode = 1;
  }
}
