// All kinds of traffic at once, at a fixed rate of arrivals: k6 run loadtest/k6/mixed.js
import { ask, easy, german, hard, LABEL, REPEATED, SECONDS } from "./common.js";

function arrivals(name, rate) {
  return {
    executor: "constant-arrival-rate",
    exec: name,
    rate: rate,
    timeUnit: "1s",
    duration: `${SECONDS}s`,
    preAllocatedVUs: 20,
    maxVUs: 200,
  };
}

export const options = {
  scenarios: {
    easy: arrivals("askEasy", 20),
    hard: arrivals("askHard", 5),
    stream: arrivals("askStream", 10),
    repeat: arrivals("askRepeat", 10),
    labelled: arrivals("askLabelled", 3),
  },
  thresholds: {
    checks: ["rate>0.99"],
    http_req_failed: ["rate<0.01"],
    "http_req_duration{kind:repeat}": ["p(95)<100"],
    dropped_iterations: ["count<10"],
  },
};

export const askEasy = () => ask(easy(), { kind: "easy" });
export const askHard = () => ask(hard(), { kind: "hard" });
export const askStream = () => ask(easy(), { kind: "stream", stream: true });
export const askRepeat = () => ask(REPEATED, { kind: "repeat" });
export const askLabelled = () => ask(german(), { kind: "labelled", label: LABEL });

export default function () {
  askEasy();
}
