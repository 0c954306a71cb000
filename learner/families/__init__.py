"""One file a family of vision-language models; what a family must say is `base.ModelFamily`."""
