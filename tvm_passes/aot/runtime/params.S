/* The parameter blob, aligned for the kernels' vector loads. */
  .section .rodata
  .balign 64
  .globl pv_params
  .hidden pv_params
pv_params:
  .incbin "params.bin"
  .section .note.GNU-stack,"",%progbits
