#pragma once
#define CLOCK_MONOTONIC 1
struct timespec {
  long tv_sec;
  long tv_nsec;
};
int clock_gettime(int, struct timespec *);
