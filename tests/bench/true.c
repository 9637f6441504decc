/* The smallest process: the base of every ratio. */
int main(void) {
    return 0;
}
