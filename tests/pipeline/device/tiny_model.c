/* A stand-in for a built library: logits[c] is c plus products of the image with a pattern, in int32.
 *
 * -DUSE_SDOT   needs the dotprod extension of Arm
 * -DHANG       never returns
 * -DFAIL       reports an error
 * -DNEWER      says that it has the next version of the C interface
 */
#include <stddef.h>
#include <string.h>
#ifdef USE_SDOT
#include <arm_neon.h>
#endif

#include "pocketvit.h"
#include "tvm_abi.h"

enum { SIDE = 16, BYTES = SIDE * SIDE * 3, CLASSES = 10 };

static int32_t dot16(const uint8_t *image, int pattern) {
#ifdef USE_SDOT
  int8x16_t pixels = vreinterpretq_s8_u8(veorq_u8(vld1q_u8(image), vdupq_n_u8(0x80)));
  return vaddvq_s32(vdotq_s32(vdupq_n_s32(0), pixels, vdupq_n_s8((int8_t)pattern)));
#else
  int32_t sum = 0;
  for (int i = 0; i < 16; ++i) sum += ((int32_t)image[i] - 128) * pattern;
  return sum;
#endif
}

static int classify(const uint8_t *image, int32_t *logits) {
#ifdef FAIL
  return -1;
#endif
#ifdef HANG
  for (volatile int forever = 1; forever;) {}
#endif
  for (int c = 0; c < CLASSES; ++c) {
    logits[c] = c;
    for (int chunk = 0; chunk < BYTES / 16; ++chunk)
      logits[c] += dot16(image + 16 * chunk, (chunk * 7 + c * 3) % 11 - 5);
  }
  return 0;
}

/* ---- as an application sees it ---- */

struct pocketvit_model { int unused; };
static pocketvit_model the_model;

uint32_t pocketvit_abi_version(void) {
#ifdef NEWER
  return POCKETVIT_ABI_VERSION + 1;
#endif
  return POCKETVIT_ABI_VERSION;
}
pocketvit_status pocketvit_create(const pocketvit_options *options, pocketvit_model **model) {
  (void)options;
  *model = &the_model;
  return POCKETVIT_OK;
}
void pocketvit_destroy(pocketvit_model *model) { (void)model; }
pocketvit_status pocketvit_get_info(const pocketvit_model *model, pocketvit_info *info) {
  (void)model;
  *info = (pocketvit_info){.abi_version = POCKETVIT_ABI_VERSION, .height = SIDE, .width = SIDE, .channels = 3,
                           .num_classes = CLASSES, .num_layers = 1, .threads = 1, .logits_scale = 0.5f,
                           .name = "tiny", .target = "test", .isa = "portable"};
  return POCKETVIT_OK;
}
pocketvit_status pocketvit_run(pocketvit_model *model, const uint8_t *rgb, int32_t *logits) {
  (void)model;
  return classify(rgb, logits) ? POCKETVIT_ERROR_KERNEL : POCKETVIT_OK;
}
const char *pocketvit_status_text(pocketvit_status status) {
  return status == POCKETVIT_ERROR_KERNEL ? "a kernel failed" : "ok";
}

/* ---- as TVM sees it ---- */

extern void TVMFFIErrorSetRaisedFromCStr(const char *kind, const char *message) __attribute__((weak));

int __tvm_ffi_pocketvit_run(void *self, const pv_any *args, int32_t count, pv_any *result) {
  (void)self, (void)count, (void)result;
  const pv_tensor *image = args[0].value.pointer, *logits = args[1].value.pointer;
  if (!classify(image->data, logits->data)) return 0;
  if (TVMFFIErrorSetRaisedFromCStr) TVMFFIErrorSetRaisedFromCStr("ValueError", "a kernel failed");
  return -1;
}

int __tvm_ffi_pocketvit_set_threads(void *self, const pv_any *args, int32_t count, pv_any *result) {
  (void)self, (void)args, (void)count;
  *result = (pv_any){.type_index = 1, .value.integer = 1};
  return 0;
}
