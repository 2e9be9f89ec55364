/* Classifies one raw RGB image and prints the best class.
 *
 *   cc classify.c -I <artifact>/include -L <artifact>/lib/<target> -lpocketvit_<model> -o classify
 *   ./classify image.rgb        (height * width * 3 bytes, as pocketvit_get_info tells)
 */
#include <pocketvit.h>
#include <stdio.h>
#include <stdlib.h>

static int fail(const char *what, const char *why) {
  fprintf(stderr, "%s: %s\n", what, why);
  return 1;
}

int main(int argc, char **argv) {
  if (argc != 2) return fail("usage", "classify IMAGE.rgb");
  if (pocketvit_abi_version() != POCKETVIT_ABI_VERSION)
    return fail("library", "made for another version of pocketvit.h");

  pocketvit_model *model;
  pocketvit_info info;
  pocketvit_status status = pocketvit_create(NULL, &model);
  if (status != POCKETVIT_OK) return fail("create", pocketvit_status_text(status));
  pocketvit_get_info(model, &info);

  size_t bytes = (size_t)info.height * (size_t)info.width * (size_t)info.channels;
  uint8_t *rgb = malloc(bytes);
  int32_t *logits = malloc((size_t)info.num_classes * sizeof *logits);
  FILE *file = fopen(argv[1], "rb");
  if (!rgb || !logits || !file) return fail(argv[1], "cannot be opened");
  if (fread(rgb, 1, bytes, file) != bytes) return fail(argv[1], "is too short");
  fclose(file);

  if (pocketvit_run(model, rgb, logits) != POCKETVIT_OK)
    return fail("run", pocketvit_last_error(model));
  int32_t best = 0;
  for (int32_t i = 1; i < info.num_classes; ++i)
    if (logits[i] > logits[best]) best = i;
  printf("%s: class %d, logit %.4f\n", info.name, (int)best,
         (double)logits[best] * (double)info.logits_scale);

  pocketvit_destroy(model);
  free(logits);
  free(rgb);
  return 0;
}
