package observe

// Shared is what happened between this host and the store that it shares with others, since the start.
type Shared struct {
	Asked bool // the store is asked; it is not while it fails

	Hits   int64 // blobs that came from the store, verified
	Misses int64 // blobs that the store did not have
	Failed int64 // requests that the store did not serve as it should
	Wrong  int64 // blobs of the store that did not have their digest

	Uploaded      int64 // blobs
	UploadedBytes int64
	Present       int64 // blobs that were not uploaded, because the store had them
	Private       int64 // and those that not everyone may read
	Dropped       int64 // and those for which the queue had no room, or that the store did not take

	Waits int64 // for a blob that another host was fetching
}
