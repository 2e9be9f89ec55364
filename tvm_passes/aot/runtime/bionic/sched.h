#pragma once
#include <stddef.h>
typedef struct {
  unsigned long bits[1024 / 64];
} cpu_set_t;
#define CPU_ISSET(core, set) ((set)->bits[(core) / 64] >> (core) % 64 & 1)
#define CPU_CLR(core, set) ((set)->bits[(core) / 64] &= ~(1ul << (core) % 64))
int sched_getaffinity(int, size_t, cpu_set_t *);
int sched_setaffinity(int, size_t, const cpu_set_t *);
int sched_yield(void);
