// Many streams at once, ramping up: k6 run loadtest/k6/stream.js
// k6 reads a whole stream before it returns, so that the time to the first byte is `waiting`.
import { ask, easy, SECONDS } from "./common.js";

export const options = {
  scenarios: {
    stream: {
      executor: "ramping-vus",
      startVUs: 1,
      stages: [
        { duration: `${Math.ceil(SECONDS / 3)}s`, target: 100 },
        { duration: `${Math.ceil(SECONDS / 3)}s`, target: 100 },
        { duration: `${Math.ceil(SECONDS / 3)}s`, target: 0 },
      ],
    },
  },
  thresholds: {
    checks: ["rate>0.99"],
    http_req_failed: ["rate<0.01"],
    "http_req_waiting{kind:stream}": ["p(95)<2000"],
  },
};

export default function () {
  ask(easy(), { kind: "stream", stream: true });
}
