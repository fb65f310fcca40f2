package statebench;

/** What nodes send each other. */
sealed interface Message permits Ask, Answer {}
