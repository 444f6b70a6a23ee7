"""Wire formats spoken towards upstreams, one module each.

`chat` speaks to every OpenAI-compatible API, `messages` to Anthropic. What they share: `exchange`
holds one HTTP answer under the call's timeouts, `refusals` turns an upstream's error into ours.
"""
