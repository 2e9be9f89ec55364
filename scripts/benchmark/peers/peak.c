/* The int8 peak of one core: as many independent accumulators as hide the latency of the dot product. */
#include <stdint.h>

#if defined(__AVX512VNNI__)
#include <immintrin.h>
enum { MACS = 64 };
typedef __m512i Vector;
#define REGISTER "v"
#define DOT(acc, a, b) __asm__ volatile("vpdpbusd %2, %1, %0" : "+v"(acc) : "v"(a), "v"(b));
#elif defined(__AVX2__)
#include <immintrin.h>
enum { MACS = 16 }; /* pairs of int16, the exact product of plain AVX2 */
typedef __m256i Vector;
#define REGISTER "x"
#define DOT(acc, a, b) \
  { \
    Vector product; \
    __asm__ volatile("vpmaddwd %2, %1, %0" : "=x"(product) : "x"(a), "x"(b)); \
    __asm__ volatile("vpaddd %1, %0, %0" : "+x"(acc) : "x"(product)); \
  }
#elif defined(__ARM_FEATURE_DOTPROD)
#include <arm_neon.h>
enum { MACS = 16 };
typedef int8x16_t Vector;
#define REGISTER "w"
#define DOT(acc, a, b) __asm__ volatile("sdot %0.4s, %1.16b, %2.16b" : "+w"(acc) : "w"(a), "w"(b));
#else
#error "no int8 dot product is known for this CPU"
#endif

enum { ACCUMULATORS = 12 };
#define REPEAT(DO) DO(0) DO(1) DO(2) DO(3) DO(4) DO(5) DO(6) DO(7) DO(8) DO(9) DO(10) DO(11)
#define CLEAR(i) Vector acc##i = {0};
#define STEP(i) DOT(acc##i, a, b)
#define USE(i) __asm__ volatile("" : : REGISTER(acc##i));

int64_t peak_macs(int64_t rounds) { return rounds * ACCUMULATORS * MACS; }

/* one variable each: the elements of an array would live in memory */
void peak_run(int64_t rounds) {
  Vector a = {0}, b = {0};
  REPEAT(CLEAR)
  for (int64_t i = 0; i < rounds; ++i) {
    REPEAT(STEP)
  }
  REPEAT(USE)
}
