// The decoder, which works in a thread of its own so that sliders stay quick while it does.

export class Decoder {
  #worker = new Worker(new URL("decoder_worker.js", import.meta.url), { type: "module" });
  #waiting = [];
  #answer = null; // to the one under way

  /** Resolves once the model can decode; `onProgress` gets bytes read. Rejects with a reason in words. */
  load(modelFile, runtimeFile, onProgress) {
    return new Promise((resolve, reject) => {
      const giveUp = (reason) => {
        this.#worker.terminate(); // or it would report progress on
        reject(new Error(reason));
      };
      this.#worker.onerror = (event) => giveUp(event.message || "the decoder's thread could not be started");
      this.#worker.onmessage = ({ data }) => {
        if (data.kind === "progress") onProgress(data.bytes);
        else if (data.kind === "problem") giveUp(data.reason);
        else {
          this.#worker.onmessage = (event) => this.#receive(event.data);
          resolve();
        }
      };
      this.#worker.postMessage({ kind: "load", modelFile, runtimeFile });
    });
  }

  /** {pixels, milliseconds}; or null for what may be dropped, once a newer such request waits. */
  decode(latents, mayBeDropped = false) {
    return new Promise((resolve, reject) => {
      const stale = mayBeDropped ? this.#waiting.findIndex((request) => request.mayBeDropped) : -1;
      if (stale >= 0) this.#waiting.splice(stale, 1)[0].resolve(null);
      this.#waiting.push({ latents, mayBeDropped, resolve, reject });
      this.#next();
    });
  }

  #next() {
    if (this.#answer || !this.#waiting.length) return;
    this.#answer = this.#waiting.shift();
    this.#worker.postMessage({ kind: "decode", latents: this.#answer.latents });
  }

  #receive(data) {
    const { resolve, reject } = this.#answer;
    this.#answer = null;
    if (data.kind === "problem") reject(new Error(data.reason));
    else resolve(data);
    this.#next();
  }
}
