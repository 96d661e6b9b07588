"""C text of the driver: runs the steps of a program, with the help of persistent worker threads.

The caller walks the list of steps. It offers every parallel step as a number of shares, which it
and the workers claim one by one; it goes on when all claimed shares are done. A worker that the
system has put aside therefore delays nobody: the others do its shares. Waiting threads spin for a
while and then sleep on a futex.
"""
from __future__ import annotations

DRIVER = """\
typedef void (*tinynn_kernel)(void *const *args, int64_t part, int64_t parts);
struct tinynn_step { tinynn_kernel kernel; void *const *args; int64_t parts; };

struct timespec_ { long seconds, nanoseconds; };
extern int clock_gettime(int clock, struct timespec_ *time);
extern long syscall(long number, ...);
extern int pthread_create(unsigned long *thread, const void *attributes, void *(*run)(void *),
                          void *argument);
extern int pthread_join(unsigned long thread, void **result);
extern int pthread_attr_init(void *attributes);
extern int pthread_attr_setstacksize(void *attributes, unsigned long nbytes);
extern int pthread_attr_destroy(void *attributes);

/* Kernels keep panels on the stack, and what a thread gets unasked depends on the system. */
enum { STACK_NBYTES = 4 << 20 };
union attributes { char bytes[128]; long alignment; }; /* at least as large as any libc's */

#if defined(__x86_64__)
enum { FUTEX_CALL = 202, AFFINITY_CALL = 203 };
#define PAUSE() __builtin_ia32_pause()
#else
enum { FUTEX_CALL = 98, AFFINITY_CALL = 122 };
#define PAUSE() __asm__ volatile("yield")
#endif
enum { FUTEX_WAIT = 128, FUTEX_WAKE = 129, MOST_THREADS = 64, SPINS = 4000 };
/* Shares per thread: more even out threads of unequal speed. */
enum { SHARES = 4 };

/* A counter that threads wait on: it only grows. */
struct signal { uint32_t value, sleepers; };

static uint32_t signal_read(struct signal *s) {
    return __atomic_load_n(&s->value, __ATOMIC_SEQ_CST);
}
static void signal_raise(struct signal *s) {
    __atomic_add_fetch(&s->value, 1, __ATOMIC_SEQ_CST);
    if (__atomic_load_n(&s->sleepers, __ATOMIC_SEQ_CST))
        syscall(FUTEX_CALL, &s->value, FUTEX_WAKE, MOST_THREADS, 0, 0, 0);
}
static void signal_wait(struct signal *s, uint32_t old) {
    for (int i = 0; i < SPINS; ++i) {
        if (signal_read(s) != old)
            return;
        PAUSE();
    }
    __atomic_add_fetch(&s->sleepers, 1, __ATOMIC_SEQ_CST);
    while (signal_read(s) == old)
        syscall(FUTEX_CALL, &s->value, FUTEX_WAIT, old, 0, 0, 0);
    __atomic_sub_fetch(&s->sleepers, 1, __ATOMIC_SEQ_CST);
}

/* step, shares: what is offered. open: shares nobody has claimed, with the number of the offer in
   the upper half, so that a claim cannot hit a later offer. unfinished: shares not yet computed.
   workers: threads started so far. cores: of each thread plus one; 0 leaves it to the system. */
static struct {
    const struct tinynn_step *step;
    int64_t shares, workers;
    uint64_t open;
    uint32_t running, stopping, unfinished;
    struct signal offered, finished;
    unsigned long handles[MOST_THREADS];
    int32_t cores[MOST_THREADS];
} pool;

/* Claims and computes shares until none is open. */
static void help(void) {
    uint64_t seen = __atomic_load_n(&pool.open, __ATOMIC_SEQ_CST);
    while ((uint32_t)seen) {
        if (!__atomic_compare_exchange_n(&pool.open, &seen, seen - 1, 0, __ATOMIC_SEQ_CST,
                                         __ATOMIC_SEQ_CST))
            continue;
        pool.step->kernel(pool.step->args, (uint32_t)seen - 1, pool.shares);
        if (__atomic_sub_fetch(&pool.unfinished, 1, __ATOMIC_SEQ_CST) == 0)
            signal_raise(&pool.finished);
        seen = __atomic_load_n(&pool.open, __ATOMIC_SEQ_CST);
    }
}
static void *work(void *number) {
    const int32_t core = pool.cores[(int64_t)number] - 1;
    if (core >= 0) {
        uint8_t set[128] = {0}; /* a bit per core */
        set[core / 8 % sizeof set] = 1 << core % 8;
        syscall(AFFINITY_CALL, 0, sizeof set, set);
    }
    while (!__atomic_load_n(&pool.stopping, __ATOMIC_SEQ_CST)) {
        const uint32_t old = signal_read(&pool.offered);
        help();
        if (!__atomic_load_n(&pool.stopping, __ATOMIC_SEQ_CST))
            signal_wait(&pool.offered, old);
    }
    return 0;
}
static void run_shared(const struct tinynn_step *step, int64_t shares) {
    const uint32_t old = signal_read(&pool.finished);
    pool.step = step;
    pool.shares = shares;
    __atomic_store_n(&pool.unfinished, (uint32_t)shares, __ATOMIC_SEQ_CST);
    const uint64_t offer = (__atomic_load_n(&pool.open, __ATOMIC_SEQ_CST) >> 32) + 1;
    __atomic_store_n(&pool.open, offer << 32 | (uint64_t)shares, __ATOMIC_SEQ_CST);
    signal_raise(&pool.offered);
    help();
    signal_wait(&pool.finished, old);
}
static int64_t now(void) {
    struct timespec_ time;
    clock_gettime(1, &time);
    return time.seconds * 1000000000ll + time.nanoseconds;
}

/* Ends the worker threads; the next run starts new ones. Not to be called during a run. */
EXPORT void tinynn_stop(void) {
    __atomic_store_n(&pool.stopping, 1, __ATOMIC_SEQ_CST);
    signal_raise(&pool.offered);
    for (int64_t i = 0; i < pool.workers; ++i)
        pthread_join(pool.handles[i], 0);
    pool.workers = 0;
    __atomic_store_n(&pool.stopping, 0, __ATOMIC_SEQ_CST);
}
/* Gives worker threads their cores; the ones that are there are replaced. Not during a run. */
EXPORT void tinynn_pin(const int32_t *cores, int64_t count) {
    tinynn_stop();
    for (int64_t i = 0; i < count && i < MOST_THREADS; ++i)
        pool.cores[i] = cores[i] + 1;
}
/* Runs all steps on at most `threads` threads, and returns 0, or 1 if another run of this program
   is under way. If the system gives no more threads, the run goes on with those there are. */
EXPORT int tinynn_run(const struct tinynn_step *steps, int64_t count, int64_t threads,
                      int64_t *nanoseconds) {
    if (__atomic_exchange_n(&pool.running, 1, __ATOMIC_SEQ_CST))
        return 1;
    if (pool.workers && pool.workers + 1 > threads)
        tinynn_stop();
    if (pool.workers + 1 < threads) {
        union attributes attributes;
        pthread_attr_init(&attributes);
        pthread_attr_setstacksize(&attributes, STACK_NBYTES);
        while (pool.workers + 1 < threads && pool.workers < MOST_THREADS) {
            if (pthread_create(&pool.handles[pool.workers], &attributes, work,
                               (void *)pool.workers))
                break;
            pool.workers += 1;
        }
        pthread_attr_destroy(&attributes);
    }
    int64_t begin = nanoseconds ? now() : 0;
    for (int64_t i = 0; i < count; ++i) {
        const struct tinynn_step *step = &steps[i];
        const int64_t most = threads > 1 ? threads * SHARES : 1;
        const int64_t shares = step->parts < most ? step->parts : most;
        if (shares > 1 && pool.workers)
            run_shared(step, shares);
        else
            step->kernel(step->args, 0, 1);
        if (nanoseconds) {
            const int64_t end = now();
            nanoseconds[i] = end - begin;
            begin = end;
        }
    }
    __atomic_store_n(&pool.running, 0, __ATOMIC_SEQ_CST);
    return 0;
}
"""


def driver(export: str) -> str:
    """The driver; `export` is the attribute text of functions that callers may look up."""
    return DRIVER.replace("EXPORT", export)
