// poold's frames for the load generator: see PROTOCOL.md. HELLO; the number of bench.handle is learnt from WELCOME.
#define EXTRA_FRAMINGS {.name = "poold", .encode = poold_encode, .scan = poold_scan, .stamp = poold_stamp, .hello = poold_hello, .greeting = poold_greeting},

static uint16_t poold_method;

static void poold_head(uint8_t *h, uint32_t body, uint8_t type, uint8_t flags, uint16_t code) {
  uint32_t n = 28 + body;
  memset(h, 0, 32);
  h[0] = (uint8_t)(n >> 24); h[1] = (uint8_t)(n >> 16); h[2] = (uint8_t)(n >> 8); h[3] = (uint8_t)n;
  h[4] = type; h[5] = flags; h[6] = (uint8_t)(code >> 8); h[7] = (uint8_t)code;
}
static uint32_t poold_u32(const uint8_t *p) { return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3]; }
static void poold_encode(Buf *o, const uint8_t *p, size_t n) {
  uint8_t h[32];
  poold_head(h, (uint32_t)n, 4, 1, 0);
  buf_put(o, h, 32); buf_put(o, p, n);
}
static void poold_stamp(uint8_t *h, uint64_t id, uint32_t s) {
  (void)s;
  h[6] = (uint8_t)(poold_method >> 8); h[7] = (uint8_t)poold_method;
  for (int i = 0; i < 8; i++) h[8 + i] = (uint8_t)(id >> (56 - 8 * i));
}
static ssize_t poold_scan(const uint8_t *in, size_t n, int eof, Rsp *r) {
  (void)eof;
  if (n < 32) return 0;
  uint32_t len = poold_u32(in);
  if (len < 28) return -1;
  if (n < 4 + (size_t)len) { r->need = 4 + (size_t)len; return 0; }
  r->has_id = 1; r->id = 0;
  for (int i = 0; i < 8; i++) r->id = r->id << 8 | in[8 + i];
  r->ok = in[4] == 5; r->body = len - 28;
  return 4 + (ssize_t)len;
}
static void poold_hello(Buf *o) {
  uint8_t h[32], b[14] = {0, 1, 0, 1, 0, 0, 0, 0, 5, 'b', 'e', 'n', 'c', 'h'};
  poold_head(h, sizeof b, 1, 0, 0);
  buf_put(o, h, 32); buf_put(o, b, sizeof b);
}
static ssize_t poold_greeting(const uint8_t *in, size_t n) {
  if (n < 32) return 0;
  uint32_t len = poold_u32(in);
  if (in[4] != 2 || len < 28 + 18) return -1;
  if (n < 4 + (size_t)len) return 0;
  const uint8_t *p = in + 32 + 16, *end = in + 4 + len;
  int count = p[0] << 8 | p[1];
  for (p += 2; count-- > 0 && p + 5 <= end && p + 5 + p[4] <= end; p += 5 + p[4])
    if (p[4] == 12 && !memcmp(p + 5, "bench.handle", 12)) poold_method = (uint16_t)(p[0] << 8 | p[1]);
  return poold_method ? 4 + (ssize_t)len : -1;
}
