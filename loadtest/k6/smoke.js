// One user, a few requests of every kind: k6 run loadtest/k6/smoke.js
import http from "k6/http";
import { check } from "k6";
import { ask, easy, german, hard, LABEL, REPEATED, URL } from "./common.js";

export const options = {
  vus: 1,
  iterations: 5,
  duration: "60s",
  thresholds: {
    checks: ["rate==1"],
    http_req_failed: ["rate==0"],
  },
};

export default function () {
  const ready = http.get(`${URL}/readyz`);
  check(ready, { ready: (r) => r.status === 200 });
  ask(easy(), { kind: "easy" });
  ask(hard(), { kind: "hard" });
  ask(easy(), { kind: "stream", stream: true });
  ask(german(), { kind: "labelled", label: LABEL });
  ask(REPEATED, { kind: "repeat" });
  const again = ask(REPEATED, { kind: "repeat" });
  check(again, { "served from the cache": (r) => r.headers["X-Tollhouse-Cache"] === "hit" });
}
