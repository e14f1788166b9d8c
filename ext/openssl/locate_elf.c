/* Linux (glibc, musl) and the BSDs.

   dlsym() on _ssl's own handle is not good enough.  The loader bound _ssl through the
   *global* scope first: an executable that exports an OpenSSL of its own (an embedding
   application linked with -rdynamic) wins there, while dlsym(handle) would search
   _ssl's dependencies and find the libssl on disk.  Both may report the same version.
   So we read the address that the loader wrote into _ssl's relocation slot (its GOT),
   and take the object that contains this address.  The slot is final: either _ssl was
   loaded with RTLD_NOW or, if it is bound lazily, it has already called the function
   (the caller of ku_locate() makes a connection first). */
#if !defined(_WIN32) && !defined(__APPLE__)

#  ifndef _GNU_SOURCE
#    define _GNU_SOURCE 1 /* dl_iterate_phdr */
#  endif
#  include "openssl/locate.h"

#  include <dlfcn.h>
#  include <link.h>
#  include <stddef.h>
#  include <stdint.h>
#  include <string.h>

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
    image->how = within ? "contained in the object that holds _ssl"
                        : "the address in _ssl's own relocation table";
    image->base = (void *)owner.base;
    image->handle = open_object(&owner);
    memcpy(image->path, owner.path, sizeof(image->path));
    if (owner.is_program) {
        strcpy(image->path, "the program itself");
    }
    if (image->handle == NULL) {
        return KU_LOCATED_NOT_LOADED;
    }
    return ku_locate_function(image, imported) ? KU_LOCATED : KU_LOCATED_HIDDEN;
}

void *
ku_locate_function(const struct ku_image *image, const char *name)
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

#endif
