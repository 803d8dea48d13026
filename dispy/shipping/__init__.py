"""Floor 2: functions, arguments and results, packed on one side and rebuilt on the other."""
