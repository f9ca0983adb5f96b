package hostconfig

const victimRoot = "SIDEMIRROR_TEST_VICTIM"

func victim() int { return 0 }
