// The page as `mien serve` shows it: the service does the work. browser/main.js is the other engine.
import { start } from "./page.js";

const key = document.getElementById("key");

async function ask(path, options = {}) {
  const headers = { ...(options.headers || {}), ...(key.value ? { Authorization: `Bearer ${key.value}` } : {}) };
  for (let tries = 0; ; tries++) {
    let response;
    try {
      response = await fetch(path, { ...options, headers });
    } catch {
      throw new Error("the service does not respond");
    }
    if (response.status === 503 && tries < 20) {
      const seconds = Number(response.headers.get("Retry-After")) || 1;
      await new Promise((done) => setTimeout(done, 1000 * seconds));
      continue;
    }
    if (response.status === 401) document.getElementById("key-label").hidden = false;
    if (response.ok) return response;
    const answer = await response.json();
    throw Object.assign(new Error(answer.detail), { reason: answer.reason });
  }
}

start({
  where: "Photographs go to this service, stay in its memory and are deleted after the answer",
  atOnce: 3, // the service collects what comes at once into batches
  about: async () => (await ask("v1/model")).json(),
  sample: async () => (await ask("sample.png")).blob(),
  card: async () => (await ask("card.txt")).text(),
  // One request for each photograph: results appear as they are ready.
  async predict(file, crops) {
    const body = new FormData();
    body.append("images", file, file.name);
    return (await (await ask(`v1/predict?crops=${crops}`, { method: "POST", body })).json()).rows;
  },
  async explain(file, face, crops) {
    const headers = { "Content-Type": "application/octet-stream" };
    return (await ask(`v1/explain?face=${face}&crops=${crops}`, { method: "POST", body: file, headers })).json();
  },
});
