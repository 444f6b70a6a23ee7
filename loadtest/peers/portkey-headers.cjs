// Portkey 1.15.2 answers every stream with 500 under the current @hono/node-server: it appends to
// the headers of a fetched response, which are immutable. This makes them mutable, at the cost of
// one object per request.
const { Response, fetch } = globalThis;
globalThis.fetch = async (...args) => {
  const answer = await fetch(...args);
  return new Response(answer.body, {
    status: answer.status,
    statusText: answer.statusText,
    headers: new Headers(answer.headers),
  });
};
