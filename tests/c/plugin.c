/* A shared library to be opened with dlopen, large enough to be packed. */
int answer(void) { return 42; }
__attribute__((used, aligned(4096))) static const char padding[200000] = {1, 2, 3};
