#pragma once
#include <stddef.h>
int close(int);
long read(int, void *, size_t);
