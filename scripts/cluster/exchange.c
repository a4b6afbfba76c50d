/* The MPI library's own exchange: MPI_Reduce_scatter_block of f32 and MPI_Allgather, measured as
   `expo ranks check` measures its sum and gather: one round that warms up, a barrier before each call, and
   the median over rounds of the slowest rank.

     exchange MEGABYTES ROUNDS

   Rank 0 prints a JSON object. */
#include <mpi.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* The median over rounds of the slowest rank; right at rank 0. */
static double median_of_slowest(double *mine, int rounds)
{
    double *slowest = calloc(rounds, sizeof *slowest), median;
    MPI_Reduce(mine, slowest, rounds, MPI_DOUBLE, MPI_MAX, 0, MPI_COMM_WORLD);
    qsort(slowest, rounds, sizeof *slowest, ascending);
    median = slowest[rounds / 2];
    free(slowest);
    return median;
}

int main(int argc, char **argv)
{
    int megabytes = argc > 1 ? atoi(argv[1]) : 0, rounds = argc > 2 ? atoi(argv[2]) : 0;
    int rank, ranks, round;
    if (megabytes < 1 || rounds < 1) {
        fprintf(stderr, "usage: exchange MEGABYTES ROUNDS\n");
        return 2;
    }
    MPI_Init(&argc, &argv);
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    MPI_Comm_size(MPI_COMM_WORLD, &ranks);
    int each = megabytes * 250000 / ranks;
    float *whole = malloc(sizeof *whole * each * ranks);
    float *piece = malloc(sizeof *piece * each);
    float *gathered = malloc(sizeof *gathered * each * ranks);
    double *sums = calloc(rounds + 1, sizeof *sums), *gathers = calloc(rounds + 1, sizeof *gathers);
    if (!whole || !piece || !gathered || !sums || !gathers) {
        fprintf(stderr, "exchange: out of memory\n");
        MPI_Abort(MPI_COMM_WORLD, 1);
    }
    for (int i = 0; i < each * ranks; i++)
        whole[i] = 1;
    memset(gathered, 0, sizeof *gathered * each * ranks);
    for (round = 0; round <= rounds; round++) {
        MPI_Barrier(MPI_COMM_WORLD);
        double start = MPI_Wtime();
        MPI_Reduce_scatter_block(whole, piece, each, MPI_FLOAT, MPI_SUM, MPI_COMM_WORLD);
        sums[round] = MPI_Wtime() - start;
        MPI_Barrier(MPI_COMM_WORLD);
        start = MPI_Wtime();
        MPI_Allgather(piece, each, MPI_FLOAT, gathered, each, MPI_FLOAT, MPI_COMM_WORLD);
        gathers[round] = MPI_Wtime() - start;
    }
    int wrong = 0;
    for (int i = 0; i < each * ranks; i++)
        wrong += gathered[i] != ranks;
    double sum = median_of_slowest(sums + 1, rounds), gather = median_of_slowest(gathers + 1, rounds);
    if (wrong) {
        fprintf(stderr, "exchange: rank %d has %d wrong sums\n", rank, wrong);
        MPI_Abort(MPI_COMM_WORLD, 1);
    }
    if (rank == 0)
        printf("{\"sum_seconds\":%.9f,\"gather_seconds\":%.9f}\n", sum, gather);
    MPI_Finalize();
    return 0;
}
