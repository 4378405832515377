// Questions to the server; an answer that is an error becomes an Error with its line.

export class Client {
  key = "";

  async ask(path, options = {}) {
    const headers = this.key ? { Authorization: `Bearer ${this.key}` } : {};
    const answer = await fetch(path, { ...options, headers });
    const content = await answer.json().catch(() => ({}));
    if (answer.ok) return content;
    const error = new Error(content.error?.message ?? `The server answered ${answer.status}.`);
    error.status = answer.status;
    throw error;
  }

  async model() {
    return (await this.ask("/v1/models")).data[0];
  }

  transcribe(file, model) {
    const form = new FormData();
    form.set("file", file);
    form.set("response_format", "verbose_json");
    form.append("timestamp_granularities[]", "phone");
    if (model.has_words) form.append("timestamp_granularities[]", "word");
    return this.ask("/v1/audio/transcriptions", { method: "POST", body: form });
  }

  classify(file) {
    const form = new FormData();
    form.set("file", file);
    return this.ask("/v1/classify", { method: "POST", body: form });
  }
}
