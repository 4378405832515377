// The page: a recording comes in, its phones are shown and corrected, files go out.

import { Client } from "./client.js";
import { toJson, toSrt, toTextGrid } from "./formats.js";
import { Recorder } from "./recorder.js";
import { Sound } from "./sound.js";
import { Timeline } from "./timeline.js";
import { Transcript } from "./transcript.js";

const find = (id) => document.getElementById(id);
const client = new Client();
const timeline = new Timeline();
let model, sound, transcript, recorder;

connect();

async function connect() {
  try {
    model = await client.model();
  } catch (error) {
    find("key-form").hidden = error.status !== 401;
    if (error.status === 503) setTimeout(connect, 1000);
    return say(error.message, error.status !== 503);
  }
  find("key-form").hidden = true;
  say("");
  const kinds = { phones: "phones", characters: "letters", labels: "labels" };
  find("model").textContent = `${model.id}: ${model.symbols.length} ${kinds[model.kind]}`;
  find("record").hidden = model.kind === "labels";
  find("phones").ariaLabel = model.kind === "characters" ? "Letters" : "Phones";
  find("symbols").replaceChildren(...model.symbols.map((symbol) => new Option(symbol)));
}

function say(text, isWrong = false) {
  find("status").textContent = text;
  find("status").classList.toggle("wrong", isWrong);
}

async function open(file) {
  sound?.stop();
  for (const id of ["result", "labels"]) find(id).hidden = true;
  try {
    if (!model) throw new Error("The server does not answer yet.");
    say(`Reading ${file.name}.`);
    if (file.size > model.max_upload_mb * 1e6) throw new Error(`${file.name} must have at most ${model.max_upload_mb} MB.`);
    if (model.kind === "labels") return showLabels(await client.classify(file), file.name);
    sound = await Sound.decode(file).catch(() => undefined);
    if (sound) {
      find("result").hidden = false;
      transcript = undefined;
      timeline.show(sound);
      sound.addEventListener("play", follow);
      sound.addEventListener("stop", follow);
      showText();
      showSelected({ index: -1 });
    }
    say(`Listening to ${file.name}.`);
    const answer = await client.transcribe(file, model);
    // Where the browser cannot play the file, the server's line about it comes first, if it has one.
    if (!sound) throw new Error(`This browser cannot play ${file.name}; convert it to wav.`);
    transcript = new Transcript(answer, { name: file.name, kind: model.kind });
    transcript.addEventListener("change", showText);
    timeline.showTranscript(transcript);
    showText();
    say(`${transcript.phones.length} ${model.kind === "phones" ? "phones" : "letters"} in ${answer.duration.toFixed(2)} seconds.`);
  } catch (error) {
    say(error.message, true);
  }
}

function showLabels(answer, name) {
  find("labels").hidden = false;
  const row = ({ label, score }) => {
    const item = document.createElement("li");
    item.textContent = `${label}: ${(score * 100).toFixed(1)} %`;
    return item;
  };
  find("label-list").replaceChildren(...answer.labels.map(row));
  say(`${name}: ${answer.labels[0]?.label ?? "too short"}.`);
}

function showText() {
  find("text").textContent = transcript?.text ?? "";
  find("undo").disabled = !transcript?.past.length;
  find("redo").disabled = !transcript?.future.length;
  for (const id of ["save-textgrid", "save-srt", "save-json"]) find(id).disabled = !transcript;
}

function showSelected({ index }) {
  const phone = transcript?.phones[index];
  find("editor").disabled = !phone;
  find("editor-legend").textContent = phone
    ? `${index + 1} of ${transcript.phones.length}, score ${Math.round(phone.score * 100)} %`
    : "No phone is selected";
  find("symbol").value = phone?.phone ?? "";
  find("start").value = phone?.start.toFixed(3) ?? "";
  find("end").value = phone?.end.toFixed(3) ?? "";
}

function follow() {
  find("play").textContent = sound.isPlaying ? "Stop" : "Play";
  timeline.follow(sound.time);
  if (sound.isPlaying) requestAnimationFrame(follow);
}

function playPhone() {
  const phone = transcript?.phones[timeline.selected];
  if (phone) sound.play(phone.start, phone.end);
}

function save(ending, type, write) {
  const name = transcript.name.replace(/\.[^.]*$/, "");
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([write(transcript)], { type }));
  link.download = `${name}.${ending}`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  say(`${link.download} is written.`);
}

async function record() {
  const button = find("record");
  if (recorder) {
    const ending = recorder;
    recorder = undefined;
    [button.textContent, find("live").hidden] = ["Record", true];
    button.classList.remove("on");
    return open(await ending.stop());
  }
  const onHeard = ({ stable, provisional }) => {
    const tail = document.createElement("span");
    tail.className = "provisional";
    tail.textContent = ` ${provisional}`;
    find("live").replaceChildren(stable, tail);
  };
  const starting = new Recorder({ key: client.key, joiner: model.kind === "phones" ? " " : "", onHeard });
  try {
    await starting.start();
  } catch (error) {
    return say(error.name === "NotAllowedError" ? "The microphone was not allowed." : error.message, true);
  }
  recorder = starting;
  button.textContent = "Stop";
  button.classList.add("on");
  find("live").replaceChildren();
  find("live").hidden = false;
  say("Recording.");
}

find("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  client.key = find("key").value;
  connect();
});
find("file").addEventListener("change", (event) => {
  const [file] = event.target.files;
  if (file) open(file);
  event.target.value = "";
});
find("record").addEventListener("click", record);
document.addEventListener("dragover", (event) => {
  event.preventDefault();
  find("drop").classList.add("over");
});
for (const name of ["dragleave", "drop"]) document.addEventListener(name, () => find("drop").classList.remove("over"));
document.addEventListener("drop", (event) => {
  event.preventDefault();
  const [file] = event.dataTransfer.files;
  if (file) open(file);
});

find("play").addEventListener("click", () => (sound.isPlaying ? sound.stop() : sound.play()));
find("zoom-in").addEventListener("click", () => timeline.zoom(1.5));
find("zoom-out").addEventListener("click", () => timeline.zoom(1 / 1.5));
find("zoom-all").addEventListener("click", () => timeline.zoom(1e-6));
find("undo").addEventListener("click", () => transcript.undo());
find("redo").addEventListener("click", () => transcript.redo());
find("play-phone").addEventListener("click", playPhone);
find("split").addEventListener("click", () => transcript.split(timeline.selected));
find("delete").addEventListener("click", () => transcript.remove(timeline.selected));
find("save-textgrid").addEventListener("click", () => save("TextGrid", "text/plain", toTextGrid));
find("save-srt").addEventListener("click", () => save("srt", "text/plain", toSrt));
find("save-json").addEventListener("click", () => save("json", "application/json", toJson));

find("symbol").addEventListener("change", (event) => {
  transcript.rename(timeline.selected, event.target.value.trim().replaceAll(/\s+/g, ""));
  showSelected({ index: timeline.selected });
});
find("symbol").addEventListener("keydown", (event) => {
  if (event.key === "Enter") find("phones").focus();
});
for (const [id, move] of [["start", "moveStart"], ["end", "moveEnd"]]) {
  find(id).addEventListener("change", (event) => {
    const time = event.target.valueAsNumber;
    if (Number.isFinite(time)) transcript[move](timeline.selected, time);
    showSelected({ index: timeline.selected });
  });
}

timeline.addEventListener("seek", ({ detail: time }) => sound.play(time));
timeline.addEventListener("select", ({ detail }) => {
  showSelected(detail);
  if (detail.isToldToPlay) playPhone();
});

find("phones").addEventListener("keydown", (event) => {
  if (!transcript || event.ctrlKey || event.metaKey || event.altKey) return;
  const [index, last] = [timeline.selected, transcript.phones.length - 1];
  const actions = {
    ArrowLeft: () => timeline.select(Math.max(index - 1, 0)),
    ArrowRight: () => timeline.select(Math.min(index + 1, last)),
    Home: () => timeline.select(0),
    End: () => timeline.select(last),
    " ": playPhone,
    Enter: () => find("symbol").select(),
    s: () => index >= 0 && transcript.split(index),
    Delete: () => index >= 0 && transcript.remove(index),
  };
  if (last < 0 || !actions[event.key]) return;
  event.preventDefault();
  actions[event.key]();
});
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") sound?.stop();
  const isInField = event.target.matches("input");
  const key = event.key.toLowerCase();
  if (!(event.ctrlKey || event.metaKey) || isInField || !transcript) return;
  if (key === "z" && !event.shiftKey) transcript.undo();
  else if (key === "y" || key === "z") transcript.redo();
  else return;
  event.preventDefault();
});
