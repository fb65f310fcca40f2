/** The service behind the strategy {@code pekko}: ledgers as sharded, event-sourced Pekko actors, behind a TCP port. */
package statebench;
