#include "cores.h"

#include <fcntl.h>
#include <string.h>
#include <unistd.h>

enum { MAX_CORES = 64 };

#ifdef __aarch64__
enum { HAS_LITTLE_CORES = 1 };
#else
enum { HAS_LITTLE_CORES = 0 };
#endif

#ifndef PV_CPUS
#define PV_CPUS "/sys/devices/system/cpu/cpu"
#endif

int32_t pv_number(const char *text) {
  int32_t number = 0;
  for (; text && *text >= '0' && *text <= '9' && number < 100000000; ++text)
    number = 10 * number + (*text - '0');
  return number;
}

/* The number in a file about one core; 0 where there is none. */
static int32_t read_number(size_t core, const char *file) {
  char path[sizeof PV_CPUS + 32] = PV_CPUS, text[16] = "";
  char *end = path + sizeof PV_CPUS - 1;
  if (core > 9) *end++ = (char)('0' + core / 10);
  *end++ = (char)('0' + core % 10);
  memcpy(end, file, strlen(file) + 1);
  int descriptor = open(path, O_RDONLY | O_CLOEXEC);
  if (descriptor < 0) return 0;
  if (read(descriptor, text, sizeof text - 1) < 0) text[0] = 0;
  close(descriptor);
  return pv_number(text);
}

/* Takes the cores away that are slower than the others, as `file` tells speeds: all up to half of
 * the fastest, or the slowest kind alone. Returns whether the file tells anything. */
static int keep_fast(pv_cores *cores, const char *file, int up_to_half) {
  int32_t speed[MAX_CORES] = {0}, least = INT32_MAX, most = 0;
  for (size_t core = 0; core < MAX_CORES; ++core) {
    if (!CPU_ISSET(core, &cores->set)) continue;
    speed[core] = read_number(core, file);
    if (speed[core] < least) least = speed[core];
    if (speed[core] > most) most = speed[core];
  }
  int32_t slow = up_to_half ? most / 2 : least < most ? least : 0;
  for (size_t core = 0; core < MAX_CORES; ++core) {
    if (!CPU_ISSET(core, &cores->set) || speed[core] > slow) continue;
    CPU_CLR(core, &cores->set);
    --cores->count;
  }
  return most > 0;
}

pv_cores pv_big_cores(void) {
  pv_cores all;
  memset(&all, 0, sizeof all);
  if (sched_getaffinity(0, sizeof all.set, &all.set) != 0) return all;
  for (size_t core = 0; core < MAX_CORES; ++core)
    if (CPU_ISSET(core, &all.set)) ++all.count;
  pv_cores big = all;
  if (!HAS_LITTLE_CORES || keep_fast(&big, "/cpu_capacity", 1)) return big;
  big = all;
  keep_fast(&big, "/cpufreq/cpuinfo_max_freq", 0);
  return big;
}

void pv_stay_on(const pv_cores *cores) {
  if (sched_setaffinity(0, sizeof cores->set, &cores->set) != 0) return; /* as fast as it gets */
}
