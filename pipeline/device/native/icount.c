/* QEMU plugin: how often every translated block of guest code ran, between two markers.
 *
 * The guest marks a region with two system calls that no kernel knows: 0x1c0de1 sets all counters to zero,
 * 0x1c0de2 writes the file <out>.<pid>.<n>. A line is one block, "address count word word ..." (hexadecimal,
 * decimal, then its 32-bit instructions in hexadecimal); the last line is "total <executed instructions>".
 *
 *     cc -O2 -shared -fPIC -o libicount.so icount.c
 *     qemu-aarch64 -plugin libicount.so,out=/tmp/profile ...
 *
 * Debian ships no qemu-plugin.h, so the few entry points are declared here, as in plugin API version 1
 * (QEMU 4.2 to 8.2; QEMU 9 replaced the inline counter by one per virtual CPU). Counters are not atomic:
 * counts are exact for a single-threaded guest only.
 */
#include <pthread.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define EXPORT __attribute__((visibility("default")))

enum { MARK_RESET = 0x1c0de1, MARK_DUMP = 0x1c0de2, INLINE_ADD_U64 = 0 };

typedef uint64_t PluginId;
typedef struct {
  const char *target_name;
  struct { int min, cur; } version;
  bool system_emulation;
  int smp_vcpus, max_vcpus;
} QemuInfo;
struct qemu_plugin_tb;
struct qemu_plugin_insn;
extern void qemu_plugin_register_vcpu_tb_trans_cb(PluginId, void (*)(PluginId, struct qemu_plugin_tb *));
extern void qemu_plugin_register_vcpu_tb_exec_inline(struct qemu_plugin_tb *, int op, void *at, uint64_t add);
extern void qemu_plugin_register_vcpu_syscall_cb(
    PluginId, void (*)(PluginId, unsigned vcpu, int64_t number, uint64_t, uint64_t, uint64_t, uint64_t, uint64_t,
                       uint64_t, uint64_t, uint64_t));
extern size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *);
extern uint64_t qemu_plugin_tb_vaddr(const struct qemu_plugin_tb *);
extern struct qemu_plugin_insn *qemu_plugin_tb_get_insn(const struct qemu_plugin_tb *, size_t);
extern const void *qemu_plugin_insn_data(const struct qemu_plugin_insn *);

EXPORT int qemu_plugin_version = 1;

typedef struct Block {
  struct Block *next;
  uint64_t runs, address;
  uint32_t length, words[];
} Block;

static Block *blocks; /* never shrinks: QEMU may translate a block again, which then is a new entry */
static pthread_mutex_t blocks_mutex = PTHREAD_MUTEX_INITIALIZER;
static char out[512] = "icount";

static void on_translate(PluginId id, struct qemu_plugin_tb *tb) {
  (void)id;
  size_t length = qemu_plugin_tb_n_insns(tb);
  Block *block = calloc(1, sizeof *block + length * sizeof block->words[0]);
  if (!block) abort();
  block->length = (uint32_t)length;
  block->address = qemu_plugin_tb_vaddr(tb);
  for (size_t i = 0; i < length; ++i)
    memcpy(&block->words[i], qemu_plugin_insn_data(qemu_plugin_tb_get_insn(tb, i)), sizeof block->words[i]);
  pthread_mutex_lock(&blocks_mutex);
  block->next = blocks;
  blocks = block;
  pthread_mutex_unlock(&blocks_mutex);
  qemu_plugin_register_vcpu_tb_exec_inline(tb, INLINE_ADD_U64, &block->runs, 1);
}

static void reset(void) {
  pthread_mutex_lock(&blocks_mutex);
  for (Block *block = blocks; block; block = block->next) block->runs = 0;
  pthread_mutex_unlock(&blocks_mutex);
}

static void dump(void) {
  static int sequence = 0;
  char path[600];
  snprintf(path, sizeof path, "%s.%d.%d", out, (int)getpid(), sequence++);
  FILE *file = fopen(path, "w");
  if (!file) return;
  uint64_t total = 0;
  pthread_mutex_lock(&blocks_mutex);
  for (Block *block = blocks; block; block = block->next) {
    if (!block->runs) continue;
    total += block->runs * block->length;
    fprintf(file, "%" PRIx64 " %" PRIu64, block->address, block->runs);
    for (uint32_t i = 0; i < block->length; ++i) fprintf(file, " %08" PRIx32, block->words[i]);
    fputc('\n', file);
  }
  pthread_mutex_unlock(&blocks_mutex);
  fprintf(file, "total %" PRIu64 "\n", total);
  fclose(file);
}

static void on_syscall(PluginId id, unsigned vcpu, int64_t number, uint64_t a1, uint64_t a2, uint64_t a3, uint64_t a4,
                       uint64_t a5, uint64_t a6, uint64_t a7, uint64_t a8) {
  (void)id, (void)vcpu, (void)a1, (void)a2, (void)a3, (void)a4, (void)a5, (void)a6, (void)a7, (void)a8;
  if (number == MARK_RESET) reset();
  if (number == MARK_DUMP) dump();
}

EXPORT int qemu_plugin_install(PluginId id, const QemuInfo *info, int argc, char **argv) {
  if (strcmp(info->target_name, "aarch64")) {
    fprintf(stderr, "icount: made for aarch64 guests, not %s\n", info->target_name);
    return -1;
  }
  for (int i = 0; i < argc; ++i)
    if (!strncmp(argv[i], "out=", 4)) snprintf(out, sizeof out, "%s", argv[i] + 4);
  qemu_plugin_register_vcpu_tb_trans_cb(id, on_translate);
  qemu_plugin_register_vcpu_syscall_cb(id, on_syscall);
  return 0;
}
