// The page's side of the worker, and what keeps it from drawing pictures that nobody waits for.

export class Engine {
  constructor() {
    this.waiting = new Map();
    this.last = 0;
    this.worker = new Worker(new URL("./worker.js", import.meta.url), {type: "module"});
    this.worker.onmessage = ({data}) => this.settle(data);
    this.worker.onerror = e => {
      for (const id of [...this.waiting.keys()]) this.settle({id, error: e.message || "the worker did not start"});
    };
  }

  settle({id, x, error}) {
    const [done, failed] = this.waiting.get(id) ?? [];
    this.waiting.delete(id);
    if (error !== undefined) failed?.(new Error(error));
    else done?.(x);
  }

  ask(message, given = []) {
    return new Promise((done, failed) => {
      this.waiting.set(++this.last, [done, failed]);
      this.worker.postMessage({id: this.last, ...message}, given);
    });
  }

  // Fetches and opens a generator; `progress` is told how much has come, from 0 to 1.
  async load(url, bytes, progress) {
    const response = await fetch(url);
    if (!response.ok) throw new Error(`${url.split("/").pop()}: ${response.status}`);
    const parts = [], reader = response.body.getReader();
    for (let came = 0, part; !(part = await reader.read()).done;) {
      parts.push(part.value);
      came += part.value.length;
      progress(Math.min(came / bytes, 1));
    }
    const model = new Uint8Array(await new Blob(parts).arrayBuffer());
    await this.ask({model}, [model.buffer]);
  }

  // The images of vectors that lie one after the other: n arrays of c·h·w numbers in [-1, 1].
  async draw(z, n) {
    const x = await this.ask({z, n}), size = x.length / n;
    return Array.from({length: n}, (_, i) => x.subarray(i * size, (i + 1) * size));
  }
}

// Runs the newest of the jobs that it is given; those overtaken while it was busy are dropped.
export function newest(job) {
  let busy = false, next = null;
  return async (...given) => {
    next = given;
    if (busy) return;
    busy = true;
    try {
      while (next) {
        const now = next;
        next = null;
        await job(...now);
      }
    } finally {
      busy = false;
    }
  };
}
