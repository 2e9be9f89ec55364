/* Prints how many big cores there are. */
#include "cores.h"

#include <stdio.h>

int main(void) {
  pv_cores cores = pv_big_cores();
  int32_t members = 0;
  for (size_t core = 0; core < 64; ++core) members += CPU_ISSET(core, &cores.set) ? 1 : 0;
  pv_stay_on(&cores);
  return members == cores.count ? printf("%d\n", (int)cores.count) < 0 : 1;
}
