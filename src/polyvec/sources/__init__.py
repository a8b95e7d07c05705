"""Real text for training and measuring, built on demand from Debian's packages.

:mod:`descriptions` reads what Debian's translators wrote of its packages, :mod:`help_pages` reads
LibreOffice's help, :mod:`split` says what is held out for tests, and :mod:`apt` fetches both with
the machine's own sources.
"""
