// Shared by the scenarios: where the gateway is, prompts, and what a right answer looks like.
import http from "k6/http";
import { check } from "k6";

export const URL = __ENV.TOLLHOUSE_URL || "http://127.0.0.1:4100";
export const MODEL = __ENV.TOLLHOUSE_MODEL || "auto";
export const LABEL = __ENV.TOLLHOUSE_LABEL || "eu";
export const SECONDS = Number(__ENV.TOLLHOUSE_SECONDS || "60");

const EASY = [
  (n) => `Say good morning in ${n} words.`,
  (n) => `Count from one to ${n}.`,
  (n) => `Name ${n} things one finds in a kitchen.`,
];
const HARD = [
  (n) => `Prove that among any ${n + 1} integers two have a difference divisible by ${n}.`,
  (n) => `Write a Python function that merges ${n} sorted iterators, with its tests.`,
  (n) => `Derive the expected number of draws until each of ${n} coupons was seen.`,
];
export const REPEATED = "What does a traveller pay at the gate, and what does the fare buy?";

function pick(texts) {
  const text = texts[Math.floor(Math.random() * texts.length)];
  return text(3 + Math.floor(Math.random() * 9996));
}

export const easy = () => pick(EASY);
export const hard = () => pick(HARD);
export const german = () =>
  `Fasse in ${3 + Math.floor(Math.random() * 96)} Sätzen zusammen, warum die Lieferung zu spät kam.`;

export function ask(text, { kind, stream = false, label = "" }) {
  const body = {
    model: MODEL,
    messages: [{ role: "user", content: text }],
    max_tokens: 64,
    stream: stream,
  };
  const headers = {
    "content-type": "application/json",
    authorization: `Bearer ${__ENV.TOLLHOUSE_KEY || ""}`,
  };
  if (label) {
    headers["x-tollhouse-residency"] = label;
  }
  // A refusal for residency is a right answer to a labelled request.
  const expected = label ? http.expectedStatuses(200, 403) : http.expectedStatuses(200);
  const response = http.post(`${URL}/v1/chat/completions`, JSON.stringify(body), {
    headers: headers,
    tags: { kind: kind },
    responseCallback: expected,
  });
  check(response, { "complete answer": (r) => complete(r, stream, label) }, { kind: kind });
  return response;
}

function complete(response, stream, label) {
  if (label && response.status === 403) {
    return response.json("error.code") === "residency_not_available";
  }
  if (response.status !== 200) {
    return false;
  }
  if (!stream) {
    return Boolean(response.json("choices.0.finish_reason"));
  }
  const events = response.body.split("\n").filter((line) => line.startsWith("data: "));
  if (events.length < 2 || events[events.length - 1].trim() !== "data: [DONE]") {
    return false;
  }
  const chunks = events.slice(0, -1).map((line) => JSON.parse(line.slice(6)));
  return (
    !chunks.some((chunk) => chunk.error) &&
    chunks.some((chunk) => (chunk.choices || []).some((choice) => choice.finish_reason))
  );
}
