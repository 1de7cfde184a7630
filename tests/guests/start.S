/* start.S: from the PVH entry (32-bit, paging off, ebx: start_info) to guest_main in long mode, and
 * the way there for the second CPU. The first 4 GiB are mapped one to one. */
    .section .note.pvh, "a", @note
    .align 4
    .long 4, 4, 18              /* name, descriptor, XEN_ELFNOTE_PHYS32_ENTRY */
    .asciz "Xen"
    .long entry

    .section .text
    .code32
    .global entry
entry:
    cld
    mov $stack_end, %esp
    mov %ebx, %esi
    /* page tables: one PML4 entry, four pages of 1 GiB or directories of 2 MiB pages */
    mov $0x80000001, %eax
    cpuid
    mov $0x83, %eax             /* present, writable, large */
    mov $0x40000000, %ebp
    mov $pointers, %edi
    mov $4, %ecx
    test $1 << 26, %edx
    jnz 2f
    mov $directory, %edi
    xor %ecx, %ecx
1:  mov %eax, (%edi)
    movl $0, 4(%edi)
    add $0x200000, %eax
    add $8, %edi
    inc %ecx
    cmp $2048, %ecx
    jb 1b
    mov $directory + 3, %eax
    mov $0x1000, %ebp
    mov $pointers, %edi
    mov $4, %ecx
2:  mov %eax, (%edi)
    add %ebp, %eax
    add $8, %edi
    dec %ecx
    jnz 2b
    movl $pointers + 3, level4
    call enable_long
    lgdt gdt_pointer
    ljmp $0x08, $long_mode

enable_long:                    /* for both CPUs */
    mov $0x20, %eax             /* PAE */
    mov %eax, %cr4
    mov $level4, %eax
    mov %eax, %cr3
    mov $0xC0000080, %ecx
    rdmsr
    or $0x100, %eax             /* EFER.LME */
    wrmsr
    mov %cr0, %eax
    or $0x80000001, %eax
    mov %eax, %cr0
    ret

    .code64
long_mode:
    xor %eax, %eax
    mov %ax, %ds
    mov %ax, %es
    mov %ax, %ss
    mov $stack_end, %rsp
    mov %esi, %edi
    call guest_main
3:  hlt
    jmp 3b

    /* probe(attempt, context): false when the attempt ended in an exception. On the first CPU. */
    .global probe
probe:
    push %rbx
    push %rbp
    push %r12
    push %r13
    push %r14
    push %r15
    sub $8, %rsp
    mov %rsp, probe_stack
    mov %rdi, %rax
    mov %rsi, %rdi
    call *%rax
    mov $1, %eax
5:  movq $0, probe_stack
    add $8, %rsp
    pop %r15
    pop %r14
    pop %r13
    pop %r12
    pop %rbp
    pop %rbx
    ret

    /* Vectors: exceptions, which end a probe; NMIs; what devices and other CPUs send. */
    .global exception_ends_probe, nmi_counted, interrupt_counted
exception_ends_probe:
    mov probe_stack, %rsp       /* 0, outside of any: the next push is one too many */
    cld
    xor %eax, %eax
    jmp 5b
interrupt_counted:
    push %rax
    mov $0xFEE000B0, %eax       /* end of interrupt */
    movl $0, (%rax)
    pop %rax
nmi_counted:
    lock incq interrupts
    iretq

    /* The second CPU wakes in real mode at SECOND_AT, where these bytes were copied to. */
    .code16
    .global second_start, second_end
second_start:
    cli
    xor %ax, %ax
    mov %ax, %ds
    lgdtl gdt_copy - second_start + 0x8000
    mov %cr0, %eax
    or $1, %eax
    mov %eax, %cr0
    ljmpl $0x18, $second_protected - second_start + 0x8000
    .code32
second_protected:
    mov $0x20, %ax
    mov %ax, %ds
    mov %ax, %ss
    mov $second_stack_end, %esp
    mov $enable_long, %eax
    call *%eax
    ljmp $0x08, $second_long
    .align 8
gdt_copy:
    .word gdt_end - gdt - 1
    .long gdt
second_end:
    .code64
second_long:
    xor %eax, %eax
    mov %ax, %ds
    mov %ax, %es
    mov %ax, %ss
    mov $second_stack_end, %rsp
    call second_main
4:  hlt
    jmp 4b

    .section .data
    .align 8
gdt:
    .quad 0
    .quad 0x00AF9A000000FFFF    /* 0x08: 64-bit code */
    .quad 0x00CF92000000FFFF    /* 0x10: data */
    .quad 0x00CF9A000000FFFF    /* 0x18: 32-bit code */
    .quad 0x00CF92000000FFFF    /* 0x20: data */
gdt_end:
gdt_pointer:
    .word gdt_end - gdt - 1
    .long gdt

    .section .bss
    .align 8
probe_stack: .skip 8
    .align 4096
level4:     .skip 4096
pointers:   .skip 4096
directory:  .skip 4 * 4096
    .skip 65536
stack_end:
    .skip 65536
second_stack_end:
    .section .note.GNU-stack, "", @progbits
