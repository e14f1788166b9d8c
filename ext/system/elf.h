/* Finds functions by name in the symbol table of an ELF file that lies in memory.

   The file may be anything: every offset, count and name in it is checked before it is
   used, and nothing outside of its bytes is read.  Linux and the BSDs only. */
#ifndef PYKEYUPDATE_ELF_H
#define PYKEYUPDATE_ELF_H

#if !defined(_WIN32) && !defined(__APPLE__)

#  ifndef _GNU_SOURCE
#    define _GNU_SOURCE                                                                \
        1 /* dl_iterate_phdr, for those that include <link.h> after us */
#  endif
#  include <link.h>
#  include <stddef.h>

struct ku_elf {
    const unsigned char *bytes; /* aligned as malloc() and mmap() align */
    size_t size;
};

struct ku_elf_function {
    const char *name;          /* looked for */
    size_t index;              /* the caller's own; the order changes */
    ElfW(Addr) address;        /* before relocation */
    size_t size;               /* of its code, in bytes; 0 if it was not found */
    const unsigned char *code; /* in the file */
};

/* Is this the file of the object that the loader mapped with these program headers? */
int ku_elf_is_of(const struct ku_elf *elf, const ElfW(Phdr) * headers, size_t count);

/* Find each function, in one pass over the table.  Returns NULL; or why none of what
   was found may be used, for a message. */
const char *ku_elf_find(const struct ku_elf *elf, struct ku_elf_function *functions,
                        size_t count);

#endif
#endif
