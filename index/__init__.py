"""What a generation contains, written and read: lexical and vector artifacts, snapshot, fusion."""
