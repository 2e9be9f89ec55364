#pragma once
#include <stddef.h>
void free(void *);
int posix_memalign(void **, size_t, size_t);
char *getenv(const char *);
