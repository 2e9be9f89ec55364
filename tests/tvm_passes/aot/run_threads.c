/* run_threads LIBRARY IMAGES LOGITS: every raw image gives the logits of the other file, with
 * handles of 1, 2 and 3 threads that run at once on as many threads of the caller, and come and go. */
#include <dlfcn.h>
#include <pocketvit.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { CALLERS = 3, LIVES = 5, ROUNDS = 10 };

#define FUNCTION(name) static __typeof__(name) *name##_
FUNCTION(pocketvit_create);
FUNCTION(pocketvit_destroy);
FUNCTION(pocketvit_get_info);
FUNCTION(pocketvit_run);

static uint8_t *images;
static int32_t *logits;
static size_t image_count, image_bytes, classes;

static void *read_all(const char *path, size_t *bytes) {
  FILE *file = fopen(path, "rb");
  if (!file) exit(2);
  fseek(file, 0, SEEK_END);
  *bytes = (size_t)ftell(file);
  rewind(file);
  void *data = malloc(*bytes);
  if (fread(data, 1, *bytes, file) != *bytes) exit(2);
  fclose(file);
  return data;
}

static void *caller(void *argument) {
  const pocketvit_options *options = argument;
  int32_t *found = malloc(classes * sizeof *found);
  for (int life = 0; life < LIVES; ++life) {
    pocketvit_model *model;
    pocketvit_info info;
    if (pocketvit_create_(options, &model)) exit(3);
    pocketvit_get_info_(model, &info);
    if (info.threads != options->threads) exit(4);
    for (size_t i = 0; i < ROUNDS * image_count; ++i) {
      size_t image = i % image_count;
      if (pocketvit_run_(model, images + image * image_bytes, found)) exit(5);
      if (memcmp(found, logits + image * classes, classes * sizeof *found)) exit(6);
    }
    pocketvit_destroy_(model);
  }
  free(found);
  return NULL;
}

int main(int argc, char **argv) {
  void *library = argc == 4 ? dlopen(argv[1], RTLD_NOW) : NULL;
  if (!library) return fprintf(stderr, "%s\n", dlerror()), 2;
#define FIND(name) *(void **)&name##_ = dlsym(library, #name)
  FIND(pocketvit_create);
  FIND(pocketvit_destroy);
  FIND(pocketvit_get_info);
  FIND(pocketvit_run);
  pocketvit_model *model;
  pocketvit_info info;
  size_t bytes;
  if (pocketvit_create_(NULL, &model)) return 3;
  pocketvit_get_info_(model, &info);
  pocketvit_destroy_(model);
  image_bytes = (size_t)(info.height * info.width * info.channels);
  classes = (size_t)info.num_classes;
  images = read_all(argv[2], &bytes);
  image_count = bytes / image_bytes;
  logits = read_all(argv[3], &bytes);
  if (bytes != image_count * classes * sizeof *logits) return 2;

  pthread_t callers[CALLERS];
  pocketvit_options options[CALLERS] = {{1}, {2}, {3}};
  for (int i = 0; i < CALLERS; ++i) pthread_create(&callers[i], NULL, caller, &options[i]);
  for (int i = 0; i < CALLERS; ++i) pthread_join(callers[i], NULL);
  free(images);
  free(logits);
  dlclose(library);
  return 0;
}
