// The microphone: sound goes to the server as it is heard, and into a file for when it ends.

export class Recorder {
  // `onHeard` is told what the server has understood so far: {stable, provisional}, both texts.
  constructor({ key, joiner, onHeard }) {
    this.key = key;
    this.joiner = joiner;
    this.onHeard = onHeard;
    this.pieces = [];
  }

  async start() {
    if (!navigator.mediaDevices) throw new Error("The microphone is only given to pages of https or of this machine.");
    this.stream = await navigator.mediaDevices.getUserMedia({
      audio: { channelCount: 1, echoCancellation: false, noiseSuppression: false, autoGainControl: false },
    });
    this.context = new AudioContext();
    this.rate = this.context.sampleRate;
    await this.context.audioWorklet.addModule("/page/recorder-worklet.js");
    this.node = new AudioWorkletNode(this.context, "recorder", { channelCount: 1, channelCountMode: "explicit" });
    this.ended = new Promise((resolve) => {
      this.node.port.onmessage = ({ data }) => (data ? this.take(data) : resolve());
    });
    this.context.createMediaStreamSource(this.stream).connect(this.node);
    this.listen();
  }

  // Ends the recording; gives a wav file.
  async stop() {
    this.node.port.postMessage("stop");
    await this.ended;
    this.stream.getTracks().forEach((track) => track.stop());
    await this.context.close();
    if (this.socket.readyState <= WebSocket.OPEN) this.socket.close();
    return new File([header(this.pieces, this.rate), ...this.pieces], "recording.wav", { type: "audio/wav" });
  }

  take(samples) {
    const piece = Int16Array.from(samples, (sample) => Math.max(-1, Math.min(1, sample)) * 32767);
    this.pieces.push(piece);
    // What the server has no time for is left out here; the file has all of it.
    if (this.socket.readyState === WebSocket.OPEN && this.socket.bufferedAmount < 2 ** 20) this.socket.send(piece);
  }

  listen() {
    this.socket = new WebSocket(`${location.origin.replace(/^http/, "ws")}/v1/stream`);
    const start = { type: "start", sample_rate: this.rate };
    if (this.key) start.api_key = this.key;
    this.socket.onopen = () => this.socket.send(JSON.stringify(start));
    const stable = [];
    this.socket.onmessage = ({ data }) => {
      const message = JSON.parse(data);
      if (message.type !== "partial") return;
      stable.push(...message.stable.map((phone) => phone.phone));
      this.onHeard({ stable: stable.join(this.joiner), provisional: message.provisional.text });
    };
  }
}

function header(pieces, rate) {
  const size = pieces.reduce((sum, piece) => sum + piece.byteLength, 0);
  const view = new DataView(new ArrayBuffer(44));
  const text = (place, letters) => [...letters].forEach((letter, i) => view.setUint8(place + i, letter.charCodeAt(0)));
  text(0, "RIFF");
  view.setUint32(4, 36 + size, true);
  text(8, "WAVEfmt ");
  view.setUint32(16, 16, true);
  view.setUint16(20, 1, true);
  view.setUint16(22, 1, true);
  view.setUint32(24, rate, true);
  view.setUint32(28, rate * 2, true);
  view.setUint16(32, 2, true);
  view.setUint16(34, 16, true);
  text(36, "data");
  view.setUint32(40, size, true);
  return view;
}
