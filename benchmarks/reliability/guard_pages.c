/* Memory that begins or ends at a page which cannot be touched, for NumPy and for numba's kernels.

   A block is laid out as | note | no access | data ... | no access |, in whole pages. The data
   begin right after the first page that cannot be touched, or end right before the last one. */

#define _GNU_SOURCE
#include <pthread.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>

#define PAGE ((size_t)4096)
#define PLACES ((size_t)1 << 20)

typedef struct { size_t size, mapped; } Note;

typedef struct {
    void *ctx;
    void *(*malloc)(void *, size_t);
    void *(*calloc)(void *, size_t, size_t);
    void *(*realloc)(void *, void *, size_t);
    void (*free)(void *, void *);
} Allocator;

/* NumPy's handler: a name, a version, and an allocator whose free is told the size as well. */
typedef struct { char name[127]; uint8_t version; Allocator allocator; } Handler;

int at_end = 1;
int is_on = 0;
long n_blocks = 0;

static Allocator usual;
static void *known[PLACES];
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static char *first_page(void *data) { return (char *)((uintptr_t)data & ~(PAGE - 1)); }

static Note *note_of(void *data) { return (Note *)(first_page(data) - 2 * PAGE); }

static void *guarded(size_t size)
{
    size_t room = (size + PAGE - 1) / PAGE * PAGE, mapped;
    if (room == 0) room = PAGE;
    mapped = room + 3 * PAGE;
    char *start = mmap(NULL, mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (start == MAP_FAILED) return NULL;
    mprotect(start + PAGE, PAGE, PROT_NONE);
    mprotect(start + 2 * PAGE + room, PAGE, PROT_NONE);
    *(Note *)start = (Note){size, mapped};
    __atomic_add_fetch(&n_blocks, 1, __ATOMIC_RELAXED);
    /* an empty block stays within its page */
    return start + 2 * PAGE + (at_end && size > 0 ? room - size : 0);
}

static void *get(void *ctx, size_t size) { (void)ctx; return guarded(size); }

static void *get_zeros(void *ctx, size_t n, size_t size) { (void)ctx; return guarded(n * size); }

static void give(void *ctx, void *data)
{
    (void)ctx;
    if (data != NULL) {
        Note *note = note_of(data);
        munmap(note, note->mapped);
    }
}

static void *change(void *ctx, void *data, size_t size)
{
    void *other = guarded(size);
    if (other != NULL && data != NULL) {
        size_t before = note_of(data)->size;
        memcpy(other, data, before < size ? before : size);
        give(ctx, data);
    }
    return other;
}

Handler numpy_handler = {"guard pages", 1, {NULL, get, get_zeros, change, give}};

/* Python's raw memory, which numba's kernels can be told to take theirs from: what came from the
   usual allocator has to go back there. */

/* Python asks for blocks that begin at multiples of 16; arrays need not. */
static size_t whole(size_t size) { return (size + 15) & ~(size_t)15; }

static size_t place_of(void *data)
{
    size_t i = ((uintptr_t)data >> 4) * 0x9E3779B97F4A7C15u >> 44;
    while (known[i % PLACES] != data && known[i % PLACES] != NULL) i++;
    return i % PLACES;
}

static void *keep(void *data)
{
    pthread_mutex_lock(&lock);
    if (data != NULL) known[place_of(data)] = data;
    pthread_mutex_unlock(&lock);
    return data;
}

/* Whether a block is ours; then it is known no longer, and what came after it moves up. */
static int drop(void *data)
{
    if (data == NULL) return 0;
    pthread_mutex_lock(&lock);
    size_t i = place_of(data);
    int ours = known[i] == data;
    if (ours) {
        known[i] = NULL;
        for (size_t j = (i + 1) % PLACES; known[j] != NULL; j = (j + 1) % PLACES) {
            void *other = known[j];
            known[j] = NULL;
            known[place_of(other)] = other;
        }
    }
    pthread_mutex_unlock(&lock);
    return ours;
}

static void *raw_get(void *ctx, size_t size)
{
    return is_on ? keep(guarded(whole(size))) : usual.malloc(ctx, size);
}

static void *raw_zeros(void *ctx, size_t n, size_t size)
{
    return is_on ? keep(guarded(whole(n * size))) : usual.calloc(ctx, n, size);
}

static void raw_give(void *ctx, void *data)
{
    if (drop(data)) give(ctx, data);
    else usual.free(ctx, data);
}

static void *raw_change(void *ctx, void *data, size_t size)
{
    if (data == NULL) return raw_get(ctx, size);
    return drop(data) ? keep(change(ctx, data, whole(size))) : usual.realloc(ctx, data, size);
}

Allocator python_allocator = {NULL, raw_get, raw_zeros, raw_change, raw_give};

void keep_usual(Allocator *allocator)
{
    usual = *allocator;
    python_allocator.ctx = usual.ctx;
}
