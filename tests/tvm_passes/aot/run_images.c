/* run_images LIBRARY IMAGES LOGITS: runs every raw image of a file through a library.
 * Two handles take turns; images are handed over at an odd address. */
#include <dlfcn.h>
#include <pocketvit.h>
#include <stdio.h>
#include <stdlib.h>

#define FUNCTION(name) __typeof__(name) *name##_ = (__typeof__(name) *)dlsym(library, #name)

int main(int argc, char **argv) {
  void *library = argc == 4 ? dlopen(argv[1], RTLD_NOW) : NULL;
  if (!library) return fprintf(stderr, "%s\n", dlerror()), 2;
  FUNCTION(pocketvit_create);
  FUNCTION(pocketvit_destroy);
  FUNCTION(pocketvit_get_info);
  FUNCTION(pocketvit_profile);
  FUNCTION(pocketvit_status_text);

  pocketvit_model *models[2] = {NULL, NULL};
  pocketvit_info info;
  for (int i = 0; i < 2; ++i) {
    pocketvit_status status = pocketvit_create_(NULL, &models[i]);
    if (status) return fprintf(stderr, "%s\n", pocketvit_status_text_(status)), 3;
  }
  pocketvit_get_info_(models[0], &info);
  size_t bytes = (size_t)(info.height * info.width * info.channels);
  size_t classes = (size_t)info.num_classes;
  uint8_t *rgb = (uint8_t *)malloc(bytes + 1) + 1;
  int32_t *logits = malloc(classes * sizeof *logits);
  uint64_t *times = malloc((size_t)info.num_layers * sizeof *times);
  FILE *in = fopen(argv[2], "rb"), *out = fopen(argv[3], "wb");
  for (int i = 0; fread(rgb, 1, bytes, in) == bytes; ++i) {
    if (pocketvit_profile_(models[i % 2], rgb, logits, times)) return 4;
    fwrite(logits, sizeof *logits, classes, out);
  }
  fclose(out);
  pocketvit_destroy_(models[0]);
  pocketvit_destroy_(models[1]);
  return 0;
}
