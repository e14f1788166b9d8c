/* Linux (glibc, musl) and the BSDs.

   dlsym() on _ssl's own handle is not good enough.  The loader bound _ssl through the
   *global* scope first: an executable that exports an OpenSSL of its own (an embedding
   application linked with -rdynamic) wins there, while dlsym(handle) would search
   _ssl's dependencies and find the libssl on disk.  Both may report the same version.
   So we read the address that the loader wrote into _ssl's relocation slot (its GOT),
   and take the object that contains this address.  The slot is final: either _ssl was
   loaded with RTLD_NOW or, if it is bound lazily, it has already called the function
   (the caller of ku_locate() makes a connection first).

   In interpreters from python-build-standalone, OpenSSL is linked into the object that
   holds _ssl, and exports nothing.  There the functions are found by name in the symbol
   table of that object's file, which no loader reads.  Why this is no guess: the file's
   program headers are those that the loader mapped; a name leads to one function only;
   and its code in memory is, byte for byte, the code in the file.  What libssl.c,
   sslobject.c and states.c prove of any library comes on top. */
#if !defined(_WIN32) && !defined(__APPLE__)

#  ifndef _GNU_SOURCE
#    define _GNU_SOURCE 1 /* dl_iterate_phdr */
#  endif
#  include "openssl/locate.h"
#  include "system/elf.h"

#  include <dlfcn.h>
#  include <fcntl.h>
#  include <stddef.h>
#  include <stdint.h>
#  include <stdlib.h>
#  include <string.h>
#  include <sys/mman.h>
#  include <sys/stat.h>
#  include <unistd.h>

#  if UINTPTR_MAX > 0xffffffffu
#    define RELOCATION_SYMBOL(info) ((info) >> 32)
#  else
#    define RELOCATION_SYMBOL(info) ((info) >> 8)
#  endif

struct loaded_object {
    uintptr_t address; /* find the object that contains this address */
    int seen;          /* objects visited so far; the first is the program */
    int found;
    int is_program;
    ElfW(Addr) base;
    const ElfW(Phdr) * headers;
    size_t n_headers;
    const ElfW(Dyn) * dynamic;
    char path[sizeof(((struct ku_image *)0)->path)];
};

static int
visit_object(struct dl_phdr_info *info, size_t size, void *data)
{
    (void)size;
    struct loaded_object *object = data;
    const ElfW(Dyn) *dynamic = NULL;
    int inside = 0;
    for (int i = 0; i < info->dlpi_phnum; i++) {
        const ElfW(Phdr) *header = &info->dlpi_phdr[i];
        uintptr_t start = info->dlpi_addr + header->p_vaddr;
        if (header->p_type == PT_LOAD) {
            inside |= object->address - start < header->p_memsz;
        }
        else if (header->p_type == PT_DYNAMIC) {
            dynamic = (const ElfW(Dyn) *)start;
        }
    }
    int is_program = object->seen++ == 0;
    if (!inside) {
        return 0;
    }
    object->found = 1;
    object->is_program = is_program;
    object->base = info->dlpi_addr;
    object->headers = info->dlpi_phdr;
    object->n_headers = info->dlpi_phnum;
    object->dynamic = dynamic;
    const char *name = info->dlpi_name != NULL ? info->dlpi_name : "";
    strncpy(object->path, name, sizeof(object->path) - 1);
    return 1;
}

static int
object_at(struct loaded_object *object, void *address)
{
    memset(object, 0, sizeof(*object));
    object->address = (uintptr_t)address;
    (void)dl_iterate_phdr(visit_object, object);
    return object->found;
}

/* glibc relocates the pointers in the dynamic section in place; musl, and glibc on some
   architectures, do not. */
static const void *
dynamic_pointer(const struct loaded_object *object, const ElfW(Dyn) * entry)
{
    uintptr_t pointer = entry->d_un.d_ptr;
    return (const void *)(pointer < object->base ? object->base + pointer : pointer);
}

struct relocations {
    const void *table;
    size_t bytes;
    size_t entry; /* size of Rel or Rela; both begin with r_offset, r_info */
};

/* An object's symbol and relocation tables, from its dynamic section. */
struct dynamic_tables {
    const ElfW(Sym) * symbols;
    const char *strings;
    struct relocations plt, rela, rel;
};

static struct dynamic_tables
dynamic_tables_of(const struct loaded_object *object)
{
    struct dynamic_tables tables = {.rela.entry = sizeof(ElfW(Rela)),
                                    .rel.entry = sizeof(ElfW(Rel)),
                                    .plt.entry = sizeof(ElfW(Rela))};
    for (const ElfW(Dyn) *d = object->dynamic; d && d->d_tag != DT_NULL; d++) {
        switch (d->d_tag) {
        case DT_SYMTAB: tables.symbols = dynamic_pointer(object, d); break;
        case DT_STRTAB: tables.strings = dynamic_pointer(object, d); break;
        case DT_RELA: tables.rela.table = dynamic_pointer(object, d); break;
        case DT_RELASZ: tables.rela.bytes = d->d_un.d_val; break;
        case DT_REL: tables.rel.table = dynamic_pointer(object, d); break;
        case DT_RELSZ: tables.rel.bytes = d->d_un.d_val; break;
        case DT_JMPREL: tables.plt.table = dynamic_pointer(object, d); break;
        case DT_PLTRELSZ: tables.plt.bytes = d->d_un.d_val; break;
        case DT_PLTREL:
            tables.plt.entry =
                d->d_un.d_val == DT_RELA ? sizeof(ElfW(Rela)) : sizeof(ElfW(Rel));
            break;
        default: break;
        }
    }
    return tables;
}

/* The address that the loader wrote for `name` into this object's table, or NULL. */
static void *
bound_address(const struct loaded_object *object, const char *name)
{
    const struct dynamic_tables tables = dynamic_tables_of(object);
    if (tables.symbols == NULL || tables.strings == NULL) {
        return NULL;
    }
    const struct relocations *all[] = {&tables.plt, &tables.rela, &tables.rel};
    for (size_t t = 0; t < sizeof(all) / sizeof(all[0]); t++) {
        const char *at = all[t]->table;
        const char *end = at != NULL ? at + all[t]->bytes : NULL;
        for (; at < end; at += all[t]->entry) {
            const ElfW(Rel) *relocation = (const ElfW(Rel) *)at;
            size_t index = RELOCATION_SYMBOL(relocation->r_info);
            if (index != 0
                && strcmp(tables.strings + tables.symbols[index].st_name, name) == 0) {
                return *(void **)(object->base + relocation->r_offset);
            }
        }
    }
    return NULL;
}

/* A handle for an object that is already loaded, or NULL. */
static void *
open_object(const struct loaded_object *object)
{
    return dlopen(object->is_program ? NULL : object->path,
                  RTLD_LAZY | RTLD_LOCAL | RTLD_NOLOAD);
}

static void *
exported_function(const struct ku_image *image, const char *name)
{
    /* A handle's scope includes its dependencies (and that of dlopen(NULL) the whole
       program): accept only a function in the object itself. */
    struct loaded_object owner;
    void *function = dlsym(image->handle, name);
    if (function == NULL || !object_at(&owner, function)
        || (void *)owner.base != image->base) {
        return NULL;
    }
    return function;
}

enum ku_located
ku_locate(struct ku_image *image, void *anchor, const char *imported)
{
    struct loaded_object caller, owner;
    if (!object_at(&caller, anchor)) {
        return KU_LOCATED_NOT_LOADED;
    }
    void *bound = bound_address(&caller, imported);
    int within =
        bound == NULL || !object_at(&owner, bound) || owner.base == caller.base;
    if (within) {
        owner = caller;
    }
    image->base = (void *)owner.base;
    image->inside = within ? anchor : bound;
    image->handle = open_object(&owner);
    memcpy(image->path, owner.path, sizeof(image->path));
    if (owner.is_program) {
        strcpy(image->path, "the program itself");
    }
    if (image->handle == NULL) {
        return KU_LOCATED_NOT_LOADED;
    }
    int is_exported = exported_function(image, imported) != NULL;
    image->is_hidden = within && !is_exported;
    image->how = !within       ? "the address in _ssl's own relocation table"
                 : is_exported ? "contained in the object that holds _ssl"
                               : "the symbol table of the file that holds _ssl, as "
                                 "OpenSSL is linked in and hidden";
    return is_exported || image->is_hidden ? KU_LOCATED : KU_LOCATED_HIDDEN;
}

/* --- functions that are not exported ---------------------------------------------- */

/* Map the file that an object was loaded from.  Returns 0 if it cannot be read. */
static int
map_file(const struct loaded_object *object, struct ku_elf *elf)
{
    /* The loader may have no name for the program, or a name that has since been given
       to another file; this link leads to the file that runs. */
    const char *path = object->is_program ? "/proc/self/exe" : object->path;
    struct stat status;
    void *bytes = MAP_FAILED;
    int file = open(path, O_RDONLY | O_CLOEXEC);
    if (file >= 0) {
        if (fstat(file, &status) == 0 && S_ISREG(status.st_mode) && status.st_size > 0
            && (uintmax_t)status.st_size <= SIZE_MAX) {
            elf->size = (size_t)status.st_size;
            bytes = mmap(NULL, elf->size, PROT_READ, MAP_PRIVATE, file, 0);
        }
        (void)close(file);
    }
    elf->bytes = bytes;
    return bytes != MAP_FAILED;
}

/* Find functions in the file, and take their addresses in memory. */
static const char *
find_in_file(const struct loaded_object *object, const struct ku_elf *elf,
             struct ku_elf_function *found, struct ku_function *functions, size_t count)
{
    if (!ku_elf_is_of(elf, object->headers, object->n_headers)) {
        return "it is not the file that runs";
    }
    const char *failure = ku_elf_find(elf, found, count);
    for (size_t i = 0; i < count && failure == NULL; i++) {
        void *address = (void *)(object->base + found[i].address);
        if (found[i].size == 0) {
            continue;
        }
        if (memcmp(address, found[i].code, found[i].size) != 0) {
            failure = "its code is not the code in memory";
        }
        functions[found[i].index].address = address;
    }
    return failure;
}

static const char *
hidden_functions(const struct ku_image *image, struct ku_function *functions,
                 size_t count)
{
    struct loaded_object object;
    struct ku_elf elf;
    struct ku_elf_function *found = calloc(count, sizeof(*found));
    if (found == NULL || !object_at(&object, image->inside)
        || !map_file(&object, &elf)) {
        free(found);
        return "it cannot be read";
    }
    for (size_t i = 0; i < count; i++) {
        found[i].name = functions[i].name;
        found[i].index = i;
    }
    const char *failure = find_in_file(&object, &elf, found, functions, count);
    (void)munmap((void *)elf.bytes, elf.size);
    free(found);
    return failure;
}

const char *
ku_locate_functions(const struct ku_image *image, struct ku_function *functions,
                    size_t count)
{
    if (image->is_hidden) {
        return hidden_functions(image, functions, count);
    }
    for (size_t i = 0; i < count; i++) {
        functions[i].address = exported_function(image, functions[i].name);
    }
    return NULL;
}

#endif
