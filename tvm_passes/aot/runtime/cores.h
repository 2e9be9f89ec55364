/* Which CPU cores to compute on. */
#ifndef POCKETVIT_CORES_H
#define POCKETVIT_CORES_H

#include <sched.h>
#include <stdint.h>

typedef struct {
  cpu_set_t set;
  int32_t count;
} pv_cores;

/* The cores that this process may use; on ARM only the big ones among them, and none where the
 * kernel does not tell which these are. */
pv_cores pv_big_cores(void);

/* Keeps the calling thread on these cores, where that is permitted. */
void pv_stay_on(const pv_cores *cores);

/* The decimal number that a text begins with; 0 when it does not, or is NULL. */
int32_t pv_number(const char *text);

#endif
